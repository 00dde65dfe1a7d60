package serving

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// States of a rollout.
const (
	RolloutTrial = "CANARY"      // it takes a share
	RolloutBack  = "ROLLED_BACK" // it was worse: the others have its share
	RolloutDone  = "PROMOTED"    // it took its last step
)

// Rollout is what is kept of a deployed model that was or is a canary.
type Rollout struct {
	State  string    `json:"state"`
	Share  int32     `json:"share"` // percent that it had
	Since  time.Time `json:"since"` // of state and share
	Reason string    `json:"reason,omitempty"`
}

// String is the sentence in the status of a deployed model.
func (r Rollout) String() string {
	switch r.State {
	case RolloutBack:
		return fmt.Sprintf("Rolled back at %s, from %d%% of the traffic: %s.", r.Since.UTC().Format(time.RFC3339), r.Share, r.Reason)
	case RolloutDone:
		return fmt.Sprintf("Promoted at %s to %d%% of the traffic.", r.Since.UTC().Format(time.RFC3339), r.Share)
	}
	return ""
}

// rolloutTick is how often shares are looked at.
const rolloutTick = time.Second

// loadRollouts reads what became of canaries before.
func (e *Engine) loadRollouts(ctx context.Context) error {
	rows, err := e.cfg.Store.List(ctx, store.Query{Kind: resource.KindRollouts})
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, row := range rows {
		var r Rollout
		if err := json.Unmarshal(row.Data, &r); err != nil {
			return fmt.Errorf("rollout of %s: %w", row.Key, err)
		}
		e.rollouts[row.Key] = r
	}
	return nil
}

// tend brings verdicts and steps about until ctx ends. What cannot be written now is
// tried again with the next tick: meanwhile the canary gets nothing.
func (e *Engine) tend(ctx context.Context) {
	tick := time.NewTicker(rolloutTick)
	defer tick.Stop()
	for {
		var some []*canary
		select {
		case <-ctx.Done():
			return
		case c := <-e.judged:
			some = []*canary{c}
		case <-tick.C:
			e.mu.RLock()
			some = slices.Collect(maps.Values(e.canaries))
			e.mu.RUnlock()
		}
		for _, c := range some {
			if err := ignoreCancel(ctx, e.advance(ctx, c)); err != nil {
				e.cfg.Log.ErrorContext(ctx, "cannot go on with a rollout", slog.String("deployment", c.key()), slog.Any("error", err))
			}
		}
	}
}

// advance writes the row of a rollout when its canary begins, is taken back or comes
// to its next step.
func (e *Engine) advance(ctx context.Context, c *canary) error {
	e.mu.RLock()
	known, current := e.rollouts[c.key()], e.canaries[c.endpoint] == c
	e.mu.RUnlock()
	if !current {
		return nil
	}
	now, reason := e.cfg.Now(), c.verdict()
	_, enough := c.seen()
	due := enough && now.Sub(known.Since) >= c.rule.Interval && c.rule.Next(known.Share) > 0
	if reason == "" && known.State == RolloutTrial && known.Share == c.share.Load() && !due {
		return nil
	}
	var next Rollout
	err := e.cfg.Store.Update(ctx, func(tx store.Tx) (err error) {
		next, err = e.settle(ctx, tx, c, known, reason, now)
		return err
	})
	if err != nil {
		return err
	}
	e.mu.Lock()
	if next.State == "" {
		delete(e.canaries, c.endpoint) // it is not on trial any more
	} else {
		e.rollouts[c.key()] = next
		if next.State != RolloutTrial {
			delete(e.canaries, c.endpoint)
		}
	}
	delete(e.endpoints, c.endpoint)
	e.epoch++
	e.mu.Unlock()
	if next == known || next.State == "" {
		return nil
	}
	if known.State == RolloutTrial {
		c.restart() // each step is judged by its own requests
	}
	e.cfg.Log.InfoContext(ctx, "rollout", slog.String("deployment", c.key()), slog.String("state", next.State), slog.Int("share", int(next.Share)), slog.String("reason", next.Reason))
	if next.State != RolloutTrial {
		e.metrics.rolledOut(c.key(), next.State)
	}
	return nil
}

// settle decides by the endpoint as it is now: somebody may have changed it. An empty
// Rollout says that c is no canary any more.
func (e *Engine) settle(ctx context.Context, tx store.Tx, c *canary, known Rollout, reason string, now time.Time) (Rollout, error) {
	endpoint := &pb.Endpoint{}
	row, err := store.GetMessage(ctx, tx, resource.KindEndpoints, c.endpoint, endpoint)
	if resource.IsNotFound(err) {
		return Rollout{}, nil
	}
	if err != nil {
		return Rollout{}, err
	}
	t, err := onTrial(endpoint)
	if err != nil || t == nil || t.id != c.id {
		return Rollout{}, nil //nolint:nilerr // the label was changed: nothing is on trial
	}
	share := t.portion(endpoint.GetTrafficSplit())
	next := Rollout{State: RolloutTrial, Share: share, Since: now}
	to := share
	switch step := c.rule.Next(share); {
	case reason != "":
		next.State, next.Reason, to = RolloutBack, reason, 0
	case known.State != RolloutTrial || known.Share != share: // it begins, or somebody set the share
	case step == 0:
		return known, nil
	default:
		to = step
		next.Share = t.portion(t.with(endpoint.GetTrafficSplit(), step))
		if step == 100 {
			next.State = RolloutDone
		}
	}
	if to != share {
		endpoint.TrafficSplit = t.with(endpoint.GetTrafficSplit(), to)
		endpoint.UpdateTime = timestamppb.New(now)
		if err := seal(endpoint); err != nil {
			return next, err
		}
		if err := store.PutMessage(ctx, tx, store.Row{Kind: row.Kind, Key: row.Key, Parent: row.Parent, State: row.State}, endpoint); err != nil {
			return next, err
		}
	}
	data, err := json.Marshal(next)
	if err != nil {
		return next, err
	}
	return next, tx.Put(ctx, store.Row{Kind: resource.KindRollouts, Key: c.key(), Parent: c.endpoint, State: next.State, Data: data})
}

// forgetRollout drops what is kept of a deployed model that goes.
func (e *Engine) forgetRollout(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.rollouts, key)
}

// Rollout tells what is known of a deployed model as a canary; false = it is none.
func (e *Engine) Rollout(key string) (Rollout, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	r, ok := e.rollouts[key]
	return r, ok
}

// onRollout is the sentence about a deployed model as a canary, "" for others.
func (e *Engine) onRollout(key string) string {
	e.mu.RLock()
	known := e.rollouts[key]
	endpoint, _, _ := strings.Cut(key, "/deployedModels/")
	c := e.canaries[endpoint]
	e.mu.RUnlock()
	if c == nil || c.key() != key || known.State != RolloutTrial {
		return known.String()
	}
	seen, enough := c.seen()
	of := "of the traffic"
	if c.of != "" {
		of = "of the traffic of what it replaces"
	}
	text := fmt.Sprintf("Canary with %d%% %s since %s: %s.", known.Share, of, known.Since.UTC().Format(time.RFC3339), seen)
	if step := c.rule.Next(known.Share); step > 0 {
		text += fmt.Sprintf(" Then %d%%, from %s on", step, known.Since.Add(c.rule.Interval).UTC().Format(time.RFC3339))
		if !enough {
			text += fmt.Sprintf(" and after %d requests", c.rule.MinRequests)
		}
		text += "."
	}
	return text
}
