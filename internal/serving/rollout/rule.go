// Package rollout judges a canary: a deployed model that takes a share of an
// endpoint's traffic beside the others, its baseline. What is allowed stands in the
// endpoint's labels; the judge is a function of the outcomes that it is told.
package rollout

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/resource"
)

// Labels of an endpoint that make a rule. All of them begin with Label.
const (
	Label            = "tategu-canary" // the id of the deployed model, or Newest
	LabelMaxErrors   = Label + "-max-errors"
	LabelMaxP99      = Label + "-max-p99"
	LabelMaxSlowdown = Label + "-max-slowdown"
	LabelMinRequests = Label + "-min-requests"
	LabelSteps       = Label + "-steps"
	LabelInterval    = Label + "-interval"
)

// Newest stands for whichever deployed model with a share is the youngest.
const Newest = "newest"

// Rule says when a canary is worse than its baseline, and how its share grows.
type Rule struct {
	Canary string // id of a deployed model, or Newest

	// MaxErrors is the share of requests that may fail beyond the baseline's.
	MaxErrors float64
	// MaxP99 bounds the time of 99 % of the requests; 0 = MaxSlowdown times the
	// baseline's.
	MaxP99      time.Duration
	MaxSlowdown float64
	// MinRequests of the canary come before any verdict, and before each step.
	MinRequests int

	// Steps are the shares in percent, growing, each for Interval at least; none = the
	// share stays as it is.
	Steps    []int32
	Interval time.Duration
}

// Defaults of a rule.
const (
	defaultMaxErrors   = 0.01
	defaultMaxSlowdown = 2
	defaultMinRequests = 10
	defaultInterval    = 10 * time.Minute
)

// FromLabels reads the rule of an endpoint; nil = there is none.
func FromLabels(labels map[string]string) (*Rule, error) {
	rule := &Rule{
		Canary: labels[Label], MaxErrors: defaultMaxErrors, MaxSlowdown: defaultMaxSlowdown, MinRequests: defaultMinRequests, Interval: defaultInterval,
	}
	for name, value := range labels {
		if name != Label && !strings.HasPrefix(name, Label+"-") {
			continue
		}
		if rule.Canary == "" {
			return nil, resource.Invalid("endpoint.labels", "the label %s goes with %s, which is not set", name, Label).
				WithHint("set %s to the id of a deployed model, or to %s", Label, Newest)
		}
		if err := rule.set(name, value); err != nil {
			return nil, resource.Invalid("endpoint.labels", "the label %s is %q: %w", name, value, err).WithHint("docs/guide/serving.md tells what the labels mean")
		}
	}
	if rule.Canary == "" {
		return nil, nil //nolint:nilnil // no rule is no error
	}
	return rule, nil
}

func (r *Rule) set(name, value string) (err error) {
	switch name {
	case Label:
	case LabelMaxErrors:
		var percent float64
		percent, err = within(value, 0, 100, "percent")
		r.MaxErrors = percent / 100
	case LabelMaxP99:
		r.MaxP99, err = duration(value, time.Millisecond)
	case LabelMaxSlowdown:
		r.MaxSlowdown, err = within(value, 1, 1000, "times the others' time")
	case LabelMinRequests:
		var n float64
		n, err = within(value, 1, 1e6, "requests")
		r.MinRequests = int(n)
	case LabelSteps:
		r.Steps, err = steps(value)
	case LabelInterval:
		r.Interval, err = duration(value, time.Second)
	default:
		err = errors.New("there is no such label")
	}
	return err
}

func within(value string, least, most float64, unit string) (float64, error) {
	n, err := strconv.ParseFloat(value, 64)
	if err != nil || !(n >= least && n <= most) {
		return 0, fmt.Errorf("want a number from %g to %g (%s)", least, most, unit)
	}
	return n, nil
}

func duration(value string, least time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < least {
		return 0, fmt.Errorf("want a duration such as 250ms or 10m, of %v or more", least)
	}
	return d, nil
}

// steps reads shares such as 5-25-100: the cloud's labels take no commas.
func steps(value string) (all []int32, err error) {
	for text := range strings.SplitSeq(value, "-") {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || n < 1 || n > 100 || len(all) > 0 && int32(n) <= all[len(all)-1] {
			return nil, errors.New("want growing percentages such as 5-25-100")
		}
		all = append(all, int32(n))
	}
	return all, nil
}

// Labels writes the rule as labels; FromLabels reads them back.
func (r *Rule) Labels() map[string]string {
	out := map[string]string{
		Label: r.Canary, LabelMaxErrors: strconv.FormatFloat(r.MaxErrors*100, 'g', 6, 64), LabelMinRequests: strconv.Itoa(r.MinRequests),
	}
	if r.MaxP99 > 0 {
		out[LabelMaxP99] = r.MaxP99.String()
	} else {
		out[LabelMaxSlowdown] = strconv.FormatFloat(r.MaxSlowdown, 'g', 6, 64)
	}
	if len(r.Steps) > 0 {
		texts := make([]string, len(r.Steps))
		for i, s := range r.Steps {
			texts[i] = strconv.Itoa(int(s))
		}
		out[LabelSteps], out[LabelInterval] = strings.Join(texts, "-"), r.Interval.String()
	}
	return out
}

// Equal reports the same rule.
func (r *Rule) Equal(o *Rule) bool {
	a, b := *r, *o
	a.Steps, b.Steps = nil, nil
	return slices.Equal(r.Steps, o.Steps) && fmt.Sprint(a) == fmt.Sprint(b)
}

// Next is the share that follows the present one; 0 = there is none.
func (r *Rule) Next(share int32) int32 {
	for _, s := range r.Steps {
		if s > share {
			return s
		}
	}
	return 0
}

// Without gives the traffic split when id gets nothing: the others keep their
// proportions, and all of it adds up to 100.
func Without(split map[string]int32, id string) map[string]int32 {
	return With(split, id, 0)
}

// With gives the traffic split when id gets share percent.
func With(split map[string]int32, id string, share int32) map[string]int32 {
	out, total := map[string]int32{}, int32(0)
	var others []string
	for other, s := range split {
		if other != id && s > 0 {
			others, total = append(others, other), total+s
		}
	}
	if total == 0 {
		return map[string]int32{id: 100}
	}
	slices.Sort(others)
	left, rest := 100-share, total
	for _, other := range others { // rounding never loses a percent: each takes its part of what is left
		part := (left*split[other] + rest/2) / rest
		if part > 0 {
			out[other] = part
		}
		left, rest = left-part, rest-split[other]
	}
	if share > 0 {
		out[id] = share
	}
	return out
}

// Between gives the traffic split when id has share percent of what it and from have
// together, which is rounded up, and from has the rest. Others keep theirs.
func Between(split map[string]int32, from, id string, share int32) map[string]int32 {
	out := maps.Clone(split)
	whole := split[from] + split[id]
	part := (whole*share + 99) / 100
	for who, s := range map[string]int32{id: part, from: whole - part} {
		out[who] = s
		if s == 0 {
			delete(out, who)
		}
	}
	return out
}
