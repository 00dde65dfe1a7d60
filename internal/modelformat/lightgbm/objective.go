package lightgbm

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

type link uint8

const (
	identity link = iota
	squared       // regression trained on the square root of the label
	logistic
	exponential
	softplus
	softmax
)

// objective turns raw scores into predictions (ObjectiveFunction::ConvertOutput).
type objective struct {
	name    string
	link    link
	sigmoid float64
}

// parseObjective reads a line such as "binary sigmoid:1".
func parseObjective(text string) (objective, error) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return objective{}, nil
	}
	o := objective{name: words[0], sigmoid: 1}
	for _, w := range words[1:] {
		value, ok := strings.CutPrefix(w, "sigmoid:")
		if !ok {
			continue
		}
		s, err := strconv.ParseFloat(value, 64)
		if err != nil {
			return o, fmt.Errorf("objective %q: sigmoid is not a number", text)
		}
		o.sigmoid = s
	}
	switch o.name {
	case "binary", "multiclassova", "multiclass_ova", "ova", "ovr":
		o.link = logistic
	case "cross_entropy", "xentropy":
		o.link, o.sigmoid = logistic, 1
	case "cross_entropy_lambda", "xentlambda":
		o.link = softplus
	case "poisson", "gamma", "tweedie":
		o.link = exponential
	case "multiclass", "softmax":
		o.link = softmax
	case "regression", "regression_l2", "regression_l1", "huber", "fair", "quantile", "mape":
		if slices.Contains(words, "sqrt") {
			o.link = squared
		}
	case "lambdarank", "rank_xendcg", "custom", "none":
	default:
		return o, fmt.Errorf("objective %q is not known", o.name)
	}
	return o, nil
}

// transform averages (forests) and applies the link, row by row.
func (m *Model) transform(out []float64) {
	if iterations := len(m.trees) / m.outputs; m.average && iterations > 0 {
		for i := range out {
			out[i] /= float64(iterations)
		}
	}
	switch m.objective.link {
	case identity:
	case squared:
		for i, v := range out {
			out[i] = math.Copysign(v*v, v)
		}
	case logistic:
		for i, v := range out {
			out[i] = 1 / (1 + math.Exp(-m.objective.sigmoid*v))
		}
	case exponential:
		for i, v := range out {
			out[i] = math.Exp(v)
		}
	case softplus:
		for i, v := range out {
			out[i] = math.Log1p(math.Exp(v))
		}
	case softmax:
		for row := range slices.Chunk(out, m.outputs) {
			normalise(row)
		}
	}
}

// normalise is the library's Softmax: shifted by the largest score.
func normalise(row []float64) {
	largest := slices.Max(row)
	sum := 0.0
	for i, v := range row {
		row[i] = math.Exp(v - largest)
		sum += row[i]
	}
	for i := range row {
		row[i] /= sum
	}
}
