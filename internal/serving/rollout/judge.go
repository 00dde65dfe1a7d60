package rollout

import (
	"fmt"
	"math"
	"time"
)

// The tests. An outcome is bad with the probability p0 at most where the canary is no
// worse than allowed, and is looked for at p0+worse and above. Each outcome moves a
// sum by the logarithm of how much likelier it is of a bad canary; the sum never falls
// below zero (Page's CUSUM, Biometrika 41, 1954), so that a canary that turns bad
// after an hour is found as fast as one that was from the start. A canary that is just
// as bad as allowed is taken back once in e^enough requests or more rarely.
//
// p0 is of the baseline's last minute, which knows nothing yet of what befalls both at
// once. So a sum that is enough is worked out again with what the baseline did since
// that sum was zero.
const (
	worse  = 0.1
	enough = 13.8 // ln 1e6
	// hopeless is a p0 beyond which nothing is worse.
	hopeless = 0.85
	// slowShare is what may exceed the limit of time, since that is about 99 %.
	slowShare = 0.01
	// slack is added to the baseline's p99: below it nobody notices.
	slack = 10 * time.Millisecond
	// fewest requests of the baseline make a p99; beside of them make a comparison.
	fewest = 50
	beside = 5
)

// Outcome is the end of one request.
type Outcome struct {
	At     time.Time
	Canary bool
	Failed bool
	Took   time.Duration // until the answer began; negative = it says nothing (a cold start, told before)
}

// Judge is told outcomes and says when the canary is worse. It is for one goroutine.
type Judge struct {
	rule   Rule
	base   history
	canary total
	errors sum
	slow   sum
	limit  time.Duration // of time; 0 = not known yet
	p99    time.Duration // of the baseline, that the limit was made of
	at     time.Time     // of limit
}

// total is what is told of the canary.
type total struct {
	requests, failed, slow int
	times                  Times
}

// NewJudge makes one for a rule.
func NewJudge(rule Rule) *Judge { return &Judge{rule: rule} }

// Limit is the time beyond which a request is slow; 0 = not known yet.
func (j *Judge) Limit(now time.Time) time.Duration {
	if j.rule.MaxP99 > 0 {
		return j.rule.MaxP99
	}
	if now.Sub(j.at) >= time.Second || j.limit == 0 {
		j.at = now
		if n, p99 := j.base.p99(now); n >= fewest {
			j.p99, j.limit = p99, time.Duration(j.rule.MaxSlowdown*float64(p99))+slack
		}
	}
	return j.limit
}

// Observe takes one outcome in and gives the reason to take the canary back, or "".
func (j *Judge) Observe(o Outcome) string {
	limit := j.Limit(o.At)
	timed := o.Took >= 0
	late := timed && limit > 0 && o.Took > limit
	if !o.Canary {
		j.base.add(o.At, o.Failed, late, timed && !o.Failed, o.Took)
		j.errors.compare(o.Failed)
		if timed {
			j.slow.compare(late)
		}
		return ""
	}
	j.canary.requests++
	if o.Failed {
		j.canary.failed++
	}
	j.errors.add(o.Failed, j.rule.MaxErrors+j.base.rate(o.At, failures))
	if timed && !o.Failed {
		j.canary.times.Add(o.Took)
	}
	if timed && limit > 0 && (!o.Failed || late) {
		j.judgeTime(o.At, late)
	}
	return j.verdict(o.At)
}

// Late counts a request of the canary that has taken longer than the limit and goes
// on; its end is told without a time.
func (j *Judge) Late(at time.Time) string {
	j.judgeTime(at, true)
	return j.verdict(at)
}

func (j *Judge) judgeTime(at time.Time, late bool) {
	if late {
		j.canary.slow++
	}
	p0 := slowShare
	if j.rule.MaxP99 == 0 { // a limit of its own holds whatever the others do
		p0 += j.base.rate(at, lates)
	}
	j.slow.add(late, p0)
}

// verdict gives the reason to take the canary back, or "".
func (j *Judge) verdict(now time.Time) string {
	if max(j.canary.requests, j.slow.seen) < j.rule.MinRequests {
		return ""
	}
	alone := j.base.requests(now) == 0
	if j.errors.enough(j.rule.MaxErrors, alone) {
		others := ""
		if !alone {
			others = fmt.Sprintf("; of the others' %d of %d did in the same time", j.errors.theirBad, j.errors.theirs)
		}
		return fmt.Sprintf("%d of its last %d requests failed%s (%g%% more are allowed)", j.errors.bad, j.errors.of, others, 100*j.rule.MaxErrors)
	}
	if j.slow.enough(slowShare, alone || j.rule.MaxP99 > 0) {
		allowed := "max-p99"
		if j.rule.MaxP99 == 0 {
			allowed = fmt.Sprintf("%g times the others' p99 of %v, and %v", j.rule.MaxSlowdown, round(j.p99), slack)
		}
		return fmt.Sprintf("%d of its last %d requests took longer than %v (%s)", j.slow.bad, j.slow.of, round(j.Limit(now)), allowed)
	}
	return ""
}

// Enough reports that the canary was seen at least as often as the rule wants.
func (j *Judge) Enough() bool { return j.canary.requests >= j.rule.MinRequests }

// Restart forgets how often the canary was seen, before its next step; what speaks
// against it is kept.
func (j *Judge) Restart() { j.canary = total{} }

// String tells what was seen so far.
func (j *Judge) String() string {
	text := fmt.Sprintf("%d requests, %d failed", j.canary.requests, j.canary.failed)
	if n, p99 := j.canary.times.Quantile(0.99); n > 0 {
		text += fmt.Sprintf(", p99 %v", round(p99))
	}
	if j.p99 > 0 {
		text += fmt.Sprintf(" (the others: %v)", round(j.p99))
	}
	return text
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(10 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// sum is one test. The counts are since it was zero last.
type sum struct {
	value            float64
	bad, of          int
	theirBad, theirs int // the baseline's
	seen             int // ever
}

func (s *sum) add(bad bool, p0 float64) {
	s.seen++
	if p0 > hopeless {
		return
	}
	s.of++
	if bad {
		s.bad++
	}
	if s.value += likelier(bad, p0); s.value <= 0 {
		*s = sum{seen: s.seen}
	}
}

// likelier is the logarithm of how much likelier an outcome is of a bad canary.
func likelier(bad bool, p0 float64) float64 {
	p0 = max(p0, 0.001)
	p1 := p0 + worse
	if bad {
		return math.Log(p1 / p0)
	}
	return math.Log((1 - p1) / (1 - p0))
}

// compare takes an outcome of the baseline in.
func (s *sum) compare(bad bool) {
	if s.value == 0 {
		return
	}
	s.theirs++
	if bad {
		s.theirBad++
	}
}

// enough looks at a sum that is large enough again, beside what the baseline did in
// the same time. Where that was as bad, it begins anew.
func (s *sum) enough(allowed float64, alone bool) bool {
	switch {
	case s.value < enough:
		return false
	case alone:
		return true
	case s.theirs < beside:
		return false // wait for the others
	}
	// Few requests are not taken at their word: one more, and a standard error.
	n := float64(s.theirs + 1)
	rate := float64(s.theirBad+1) / n
	p0 := allowed + rate + math.Sqrt(rate*(1-rate)/n)
	again := 0.0
	if p0 <= hopeless {
		again = float64(s.bad)*likelier(true, p0) + float64(s.of-s.bad)*likelier(false, p0)
	}
	if again <= 0 {
		*s = sum{seen: s.seen}
	}
	return again >= enough
}
