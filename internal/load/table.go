package load

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Head is the first line of the table of steps; Line gives the others.
func Head() string {
	return fmt.Sprintf("%10s %10s %8s %8s %8s %8s  %s", "rate/s", "good/s", "p50", "p99", "failed", "replicas", "held")
}

// Line tells of a step.
func Line(s Step) string {
	held := "yes"
	switch {
	case !s.Held():
		held = "no: " + s.Why
		if s.Cut {
			held += ", ended early"
		}
	case s.Purpose == Work:
		held = fmt.Sprintf("yes (%.0f%% of the knee)", 100*WorkShare)
	case s.Purpose == Confirm:
		held = "yes, again"
	}
	replicas := "-"
	if s.Replicas > 0 {
		replicas = strconv.Itoa(s.Replicas)
	}
	good := s.Rate * float64(s.Good) / float64(max(1, s.Sent))
	return fmt.Sprintf("%10s %10s %8s %8s %8s %8s  %s", Rate(s.Rate), Rate(good), Told(s.P50), Told(s.P99), failures(s), replicas, held)
}

// failures is the share of failed requests.
func failures(s Step) string {
	failed := s.Sent - s.Answered
	if failed == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f%%", 100*float64(failed)/float64(s.Sent))
}

// Failures counts what failed in all steps, the most frequent first, and gives the
// first words of a failure.
func (r *Result) Failures() (kinds []string, words string) {
	count := map[string]int{}
	for _, s := range r.Steps {
		for kind, n := range s.Failed {
			count[kind] += n
		}
		if words == "" {
			words = s.Failure
		}
	}
	for kind := range count {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int {
		if d := count[b] - count[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for i, kind := range kinds {
		kinds[i] = fmt.Sprintf("%d x %s", count[kind], kind)
	}
	return kinds, words
}

// unheld says what to do where no rate held: when half of the requests were fast even
// so, what made the others slow is seldom the endpoint.
func (r *Result) unheld() string {
	for _, s := range r.Steps {
		if s.Answered > 0 && s.P50 < r.Limit && len(s.Failed) == 0 {
			return " But half of the requests took less than " + Told(s.P50) + " at " + Rate(s.Rate) +
				" a second: something else may be at work on this machine or the server's. Try again when it is quiet, or allow more by --p99."
		}
	}
	return " Try a lower --from, or allow more by --p99; `tategu why ENDPOINT` says what its replicas do."
}

// LateShare of the limit is how late this program may be itself without being what is
// measured.
const lateShare = 0.5

// Conclude says in sentences what was found.
func (r *Result) Conclude() []string {
	out := []string{fmt.Sprintf("A caller who is alone waits %s (p50), %s (p99). The limit is a p99 of %s.", Told(r.Alone.P50), Told(r.Alone.P99), Told(r.Limit))}
	switch {
	case r.Knee == 0:
		out = append(out, "No rate held."+r.unheld())
	case r.Beyond == 0:
		out = append(out, fmt.Sprintf("The knee is at %s requests a second or above: nothing that was tried failed.", Rate(r.Knee)))
	default:
		out = append(out, fmt.Sprintf("The knee is at %s requests a second; %s did not hold.", Rate(r.Knee), Rate(r.Beyond)))
	}
	if r.Stopped != "" {
		out = append(out, "The search ended before it was over: "+r.Stopped+".")
	}
	if r.Knee > 0 && !r.Confirmed {
		out = append(out, "The knee was not confirmed by a second try.")
	}
	if r.At != nil && float64(r.At.Late) > lateShare*float64(r.Limit) {
		out = append(out, fmt.Sprintf("This program was late itself (by %s, p99): the endpoint may take more. Run it on another machine.", Told(r.At.Late)))
	}
	if kinds, words := r.Failures(); len(kinds) > 0 {
		out = append(out, "Failed: "+strings.Join(kinds, ", ")+"; first: "+words)
	}
	return out
}
