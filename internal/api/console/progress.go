package console

import (
	"strings"
	"time"

	"tategu/internal/pipeline"
)

// part is a task of a run as far as a page of many of them needs it.
type part struct {
	key                     string // of its row
	id, parent              int64
	up                      *part // what it is in; nil for the run itself
	path, name, kind        string
	step                    *step
	state                   pipeline.State
	round, attempt          int
	workload                string // of its last attempt
	created, started, ended time.Time
	revision                int64
	problem                 string // why it failed, or what it was not run for; a line

	phase   phase
	current bool // not of an attempt of its graph that is over
}

// leaf reports a task that does something itself.
func (p *part) leaf() bool {
	return p.kind == pipeline.KindContainer || p.kind == pipeline.KindImporter
}

func (p *part) took(now time.Time) time.Duration {
	switch {
	case p.started.IsZero():
		return 0
	case p.ended.IsZero():
		return now.Sub(p.started)
	default:
		return p.ended.Sub(p.started)
	}
}

// step is a task as the pipeline names it, with what a run has of it. The step ""
// is the run.
type step struct {
	path, name string
	above      *step
	parts      []*part // instances; of a loop not its iterations
	rounds     []*part // iterations of a loop
	sum        summary
	revision   int64 // of the last change in it
}

// summary is how a step is.
type summary struct {
	Phase  phase
	Counts [phases]int // tasks that do something, in it and below
	Parts  int         // instances that it has
	Rounds int         // iterations
}

// Total is how many tasks there are.
func (s summary) Total() int {
	n := 0
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Done is how many of them will not change.
func (s summary) Done() int {
	n := 0
	for p, c := range s.Counts {
		if phase(p).done() {
			n += c
		}
	}
	return n
}

// many reports a step that is told by counts.
func (s summary) many() bool { return s.Parts > 1 || s.Rounds > 0 || s.Total() > 1 }

// Text is the summary in a few words.
func (s summary) Text() string {
	if !s.many() {
		return s.Phase.Label()
	}
	words := []string{amount(s.Done()) + "/" + amount(s.Total())}
	for _, p := range []phase{failed, running, queued} {
		if s.Counts[p] > 0 {
			words = append(words, amount(s.Counts[p])+" "+p.lower())
		}
	}
	return strings.Join(words, " · ")
}

// worst is the phase of several tasks together.
func worst(counts [phases]int) phase {
	for _, p := range []phase{failed, running, queued} {
		if counts[p] > 0 {
			return p
		}
	}
	if counts[waiting] > 0 {
		for p := cancelled; p < phases; p++ {
			if counts[p] > 0 {
				return running // some are done and some are to come
			}
		}
		return waiting
	}
	for _, p := range []phase{cancelled, succeeded, taken, notRun} {
		if counts[p] > 0 {
			return p
		}
	}
	return none
}

// count works out every summary anew. It is a walk over all tasks that allocates
// nothing: 40,000 of them take a few milliseconds, and nothing can go astray.
func (f *feed) count(waits func(workload string) bool) {
	for _, s := range f.steps {
		s.sum, s.revision, s.parts, s.rounds = summary{Phase: none}, 0, s.parts[:0], s.rounds[:0]
	}
	for _, p := range f.order {
		if p.up == nil {
			p.up = f.byID[p.parent]
		}
		up := p.up
		p.current = up == nil || up.current && p.round == up.attempt
		p.phase = phaseOf(p.state, p.state == pipeline.Running && p.leaf() && waits(p.workload))
		for s := p.step; s != nil; s = s.above {
			s.revision = max(s.revision, p.revision)
		}
		if !p.current {
			continue
		}
		if up != nil && up.kind == pipeline.KindLoop {
			p.step.rounds = append(p.step.rounds, p)
			p.step.sum.Rounds++
		} else {
			p.step.parts = append(p.step.parts, p)
			p.step.sum.Parts++
		}
		if p.leaf() {
			for s := p.step; s != nil; s = s.above {
				s.sum.Counts[p.phase]++
			}
		}
	}
	for _, s := range f.steps {
		if len(s.parts) == 1 {
			s.sum.Phase = s.parts[0].phase
		} else {
			s.sum.Phase = worst(s.sum.Counts)
		}
	}
}
