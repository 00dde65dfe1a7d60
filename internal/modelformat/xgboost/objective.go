package xgboost

import (
	"fmt"
	"strings"
)

type link uint8

const (
	identity link = iota
	logistic
	exponential
	hinge
	softmax
	argmax
)

// objective turns margins into predictions (ObjFunction::PredTransform), and the
// intercept of the file into a margin (ObjFunction::ProbToMargin).
type objective struct {
	name string
	link link
}

func newObjective(name string) (objective, error) {
	o := objective{name: name}
	// Before 1.0 objectives on a graphics card had names of their own.
	switch name = strings.TrimPrefix(name, "gpu:"); name {
	case "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror",
		"reg:quantileerror", "reg:expectileerror", "binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map":
	case "reg:logistic", "binary:logistic":
		o.link = logistic
	case "count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft":
		o.link = exponential
	case "binary:hinge":
		o.link = hinge
	case "multi:softmax":
		o.link = argmax
	case "multi:softprob":
		o.link = softmax
	default:
		return o, fmt.Errorf("objective %q is not known", name)
	}
	return o, nil
}

// smallest is kRtEps, by which current versions keep an intercept off 0 and 1.
const smallest = float32(1e-6)

// intercept turns the base_score of a file into a margin.
func (o objective) intercept(score float32, v version) (float32, error) {
	link := o.link
	if o.name == "binary:logitraw" && v.before(1, 3) {
		link = logistic
	}
	switch link {
	case logistic:
		if !(score >= 0 && score <= 1) {
			return 0, fmt.Errorf("base_score %v of %s is not between 0 and 1", score, o.name)
		}
		if !v.before(3, 1) {
			score = min(max(score, smallest), 1-smallest)
		}
		return -logf(1/score - 1), nil
	case exponential:
		return logf(score), nil
	case identity, hinge, softmax, argmax:
	}
	return score, nil
}

// transform turns margins into predictions, row by row.
func (m *Model) transform(out []float32) {
	switch m.objective.link {
	case identity:
	case logistic:
		for i, v := range out {
			out[i] = m.exp.sigmoid(v)
		}
	case exponential:
		for i, v := range out {
			out[i] = m.exp.expf(v)
		}
	case hinge:
		for i, v := range out {
			out[i] = 0
			if v > 0 {
				out[i] = 1
			}
		}
	case softmax:
		for ; len(out) > 0; out = out[m.groups:] {
			m.exp.softmax(out[:m.groups])
		}
	case argmax:
		for ; len(out) > 0; out = out[m.groups:] {
			best := 0
			for g, v := range out[:m.groups] {
				if v > out[best] {
					best = g
				}
			}
			out[0] = float32(best)
		}
	}
}

// sigmoid is common::Sigmoid of src/common/math.h.
func (t *expTable) sigmoid(x float32) float32 {
	const tiny = float32(1e-16)
	return 1 / (t.expf(min(-x, 88.7)) + 1 + tiny)
}

// softmax is common::Softmax.
func (t *expTable) softmax(row []float32) {
	largest := row[0]
	for _, v := range row[1:] {
		if v > largest || largest != largest {
			largest = v
		}
	}
	sum := 0.0
	for i, v := range row {
		row[i] = t.expf(v - largest)
		sum += float64(row[i])
	}
	for i := range row {
		row[i] /= float32(sum)
	}
}
