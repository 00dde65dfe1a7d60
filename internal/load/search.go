package load

import (
	"context"
	"math"
	"time"
)

// search finds the knee: the highest rate that holds. It climbs by doubling until a
// rate fails, then halves the ratio between the last that held and the first that
// did not.
type search struct {
	config Config
	result *Result
	step   func(ctx context.Context, p Purpose, rate float64) (Step, error)
	left   func() time.Duration
}

// leastRate is where the way down ends: a request in ten seconds.
const leastRate = 0.1

func (s *search) run(ctx context.Context) error {
	if err := s.bracket(ctx); err != nil {
		return err
	}
	for {
		for s.result.Beyond > s.result.Knee*(1+s.config.Precision) {
			if err := s.try(ctx, Bisect, math.Sqrt(s.result.Knee*s.result.Beyond)); err != nil {
				return err
			}
		}
		// What held once may have been lucky.
		at := s.result.Knee
		if err := s.try(ctx, Confirm, at); err != nil {
			return err
		}
		if s.result.Knee == at {
			s.result.Confirmed = true
			if s.result.Beyond == 0 {
				return errMaxRate
			}
			return nil
		}
		if s.result.Knee == 0 {
			return errSlow
		}
	}
}

// bracket climbs, or goes down when even the first rate fails.
func (s *search) bracket(ctx context.Context) error {
	rate := math.Min(s.config.From, s.config.MaxRate)
	for {
		if err := s.try(ctx, Climb, rate); err != nil {
			return err
		}
		switch r := s.result; {
		case r.Knee > 0 && r.Beyond > 0:
			return nil
		case r.Knee >= s.config.MaxRate:
			return nil
		case r.Beyond == 0:
			rate = math.Min(2*rate, s.config.MaxRate)
		case rate <= leastRate:
			return errSlow
		default:
			rate = math.Max(rate/2, leastRate)
		}
	}
}

// try makes steps at a rate until one holds or enough have failed in turn: what else
// is at work on a machine makes answers late, and never early.
func (s *search) try(ctx context.Context, p Purpose, rate float64) error {
	for range s.config.Tries {
		if s.left() <= 0 {
			return errTime
		}
		step, err := s.step(ctx, p, rate)
		if err != nil {
			return err
		}
		s.note(step)
		if step.Held() {
			s.result.Knee = math.Max(s.result.Knee, rate)
			s.result.At = &step
			return nil
		}
	}
	s.result.Beyond = rate
	if rate <= s.result.Knee { // it had held: the knee is below
		s.result.Knee, s.result.At = s.below(rate)
	}
	return nil
}

func (s *search) note(step Step) {
	s.result.Steps = append(s.result.Steps, step)
	if s.config.Show != nil {
		s.config.Show(step)
	}
}

// below gives the highest rate below one that held.
func (s *search) below(rate float64) (float64, *Step) {
	best := 0.0
	var at *Step
	for i := range s.result.Steps {
		if step := &s.result.Steps[i]; step.Held() && step.Rate < rate && step.Rate >= best {
			best, at = step.Rate, step
		}
	}
	return best, at
}

// work measures at the share of the knee that a replica should be given.
func (s *search) work(ctx context.Context) error {
	if s.left() <= 0 {
		return nil // the knee is known: that is not cut short
	}
	step, err := s.step(ctx, Work, s.result.Knee*WorkShare)
	if err != nil {
		return err
	}
	s.note(step)
	s.result.Work = &step
	return nil
}
