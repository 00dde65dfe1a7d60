package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// trace is what the ledger of the flows says of one start of a program, by its
// workload: its own steps, and what was killed of it.
type trace struct {
	run, name   string
	steps       map[string]int // begin, fails, commit, mixed
	kills       map[string]int // "program", "wrapper"
	first, last time.Time      // of its own steps
}

// traces are those of all flows, by workload.
type traces map[string]*trace

// readTraces reads what testdata/flow.sh, flows.py and the striker wrote. The last
// line may still be on its way.
func readTraces(path string) (traces, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all := traces{}
	for line := range strings.Lines(string(text)) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		if err := all.add(strings.TrimSpace(line)); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	return all, nil
}

func (all traces) add(line string) error {
	fields := strings.Split(line, ",")
	if len(fields) != 5 {
		return fmt.Errorf("line %q has not five fields", line)
	}
	seconds, fraction, _ := strings.Cut(fields[0], ".")
	whole, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	nanos, err := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
	if err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	at := time.Unix(whole, nanos)
	step, workload := fields[1], fields[4]
	t := all[workload]
	if t == nil {
		t = &trace{steps: map[string]int{}, kills: map[string]int{}}
		all[workload] = t
	}
	if what, ok := strings.CutPrefix(step, killStep); ok {
		t.kills[what]++
		return nil
	}
	t.run, t.name = fields[2], fields[3]
	t.steps[step]++
	if t.first.IsZero() || at.Before(t.first) {
		t.first = at
	}
	if at.After(t.last) {
		t.last = at
	}
	return nil
}

// killStep begins the step of a line that says what of a workload was killed.
const killStep = "kill-"
