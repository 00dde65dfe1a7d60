package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// span is a run of ticks that were seen in time and wait for a place among the
// active runs. Ticks between two spans passed while nobody looked.
type span struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

func readQueue(ctx context.Context, r store.Reader, name string) ([]span, error) {
	row, err := r.Get(ctx, resource.KindScheduleQueues, name)
	if resource.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var queue []span
	if err := json.Unmarshal(row.Data, &queue); err != nil {
		return nil, fmt.Errorf("read the queue of %s: %w", name, err)
	}
	return queue, nil
}

// tick is the tick to deal with. Ticks that passed while no server ran, or that a
// step of the clock jumped over, are one: the latest. Those that are caught up or
// wait in the queue come one by one.
func (s *view) tick(now time.Time) time.Time {
	first := s.NextRunTime.AsTime()
	if s.CatchUp {
		return first
	}
	for _, seen := range s.queue {
		switch {
		case first.After(seen.To):
		case first.Before(seen.From):
			return seen.From
		default:
			return first
		}
	}
	return s.latest(first, now)
}

// latest is the last tick that has come, from one that has.
func (s *view) latest(first, now time.Time) time.Time {
	if s.EndTime != nil && s.EndTime.AsTime().Before(now) {
		now = s.EndTime.AsTime()
	}
	return s.cron.Latest(first, now)
}

// enqueue leaves a tick for later. Which ticks wait is written down, so that after a
// restart they are told from those that nobody saw.
func (e *Engine) enqueue(ctx context.Context, s *view, tick, now time.Time) (next, error) {
	after := next{at: s.cron.Next(now), blocked: true}
	if after.at.IsZero() {
		after.at = now.Add(lookAgain)
	}
	queue, changed := s.queue, false
	if !s.CatchUp {
		queue, changed = s.extended(tick, now)
	}
	if !changed {
		return after, nil
	}
	data, err := json.Marshal(queue)
	if err != nil {
		return next{}, fmt.Errorf("write the queue of %s: %w", s.Name, err)
	}
	_, err = e.write(ctx, s, func(tx store.Tx) error {
		return tx.Put(ctx, store.Row{Kind: resource.KindScheduleQueues, Key: s.Name, Data: data})
	})
	return after, err
}

// extended is the queue with the latest tick in it, and without what has run.
func (s *view) extended(tick, now time.Time) (queue []span, changed bool) {
	for _, seen := range s.queue {
		if !seen.To.Before(tick) {
			queue = append(queue, seen)
		}
	}
	latest := s.latest(tick, now)
	if len(queue) == 0 {
		return []span{{From: tick, To: latest}}, true
	}
	last := &queue[len(queue)-1]
	switch {
	case !latest.After(last.To):
		return queue, false
	case s.cron.Next(last.To).Equal(latest):
		last.To = latest
	default:
		queue = append(queue, span{From: latest, To: latest})
	}
	return queue, true
}
