package serving

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/serving/rollout"
)

// CheckLabels refuses labels of an endpoint that stand for a rule and make none.
func CheckLabels(labels map[string]string) error {
	endpoint := &pb.Endpoint{Labels: labels}
	_, err := rollout.FromLabels(labels)
	_, bad := shadowOf(endpoint)
	_, wrong := wishOf(endpoint)
	return cmp.Or(err, bad, wrong)
}

// CanaryLabel begins the labels of an endpoint that make a rule for its canary, which is
// about a deployed model by its id, or about CanaryNewest.
const (
	CanaryLabel  = rollout.Label
	CanaryNewest = rollout.Newest
)

// Canary gives the traffic split without the share of the deployed model that is on
// trial by the endpoint's labels; id "" = there is none.
func Canary(endpoint *pb.Endpoint) (id string, without map[string]int32) {
	t, err := onTrial(endpoint)
	if t == nil || err != nil {
		return "", nil
	}
	return t.id, t.with(endpoint.GetTrafficSplit(), 0)
}

// Share gives the traffic split in which a deployed model has share percent, and the
// others the rest in their proportions.
func Share(split map[string]int32, id string, share int32) map[string]int32 {
	return rollout.With(split, id, share)
}

// errRolledBack ends requests of a canary that is taken back.
var errRolledBack = errors.New("the canary is taken back")

// canary is a deployed model on trial. Its requests are told to a judge; when that
// finds it worse, nothing more is sent to it from that moment on, and the row of the
// endpoint follows.
type canary struct {
	endpoint string
	trial
	now    func() time.Time
	judged chan<- *canary

	gone  context.Context //nolint:containedctx // ends when the canary is taken back, for the requests that it has
	end   context.CancelFunc
	out   atomic.Bool  // it gets nothing any more
	share atomic.Int32 // its share now, in percent of what its rule is about

	mu     sync.Mutex
	judge  *rollout.Judge
	reason string
}

func newCanary(endpoint string, t trial, now func() time.Time, judged chan<- *canary) *canary {
	c := &canary{endpoint: endpoint, trial: t, now: now, judged: judged, judge: rollout.NewJudge(*t.rule)}
	c.gone, c.end = context.WithCancel(context.Background())
	return c
}

func (c *canary) key() string { return resource.DeploymentKey(c.endpoint, c.id) }

// limit is the time beyond which a request is slow; 0 = not known.
func (c *canary) limit() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.Limit(c.now())
}

func (c *canary) observe(o rollout.Outcome) {
	o.At = c.now()
	c.tell(func(j *rollout.Judge) string { return j.Observe(o) })
}

func (c *canary) late() {
	c.tell(func(j *rollout.Judge) string { return j.Late(c.now()) })
}

// tell lets the judge know, and acts on its word.
func (c *canary) tell(what func(*rollout.Judge) string) {
	c.mu.Lock()
	reason := ""
	if c.reason == "" {
		reason = what(c.judge)
		c.reason = reason
	}
	c.mu.Unlock()
	if reason == "" {
		return
	}
	c.out.Store(true)
	c.end()
	select {
	case c.judged <- c:
	default: // looked at with the next tick
	}
}

// verdict is the reason to take it back, "" as long as there is none.
func (c *canary) verdict() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.reason
}

// seen tells what the judge saw, and whether it is enough for a step.
func (c *canary) seen() (text string, enough bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.judge.String(), c.judge.Enough()
}

func (c *canary) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge.Restart()
}

// trial is which deployed model is a canary, and by which rule.
type trial struct {
	id   string
	rule *rollout.Rule
	// of is the id of the deployed model that it is to replace, whose share it takes; "" =
	// it takes of all others.
	of string
}

func ruleOf(endpoint *pb.Endpoint) (*rollout.Rule, error) {
	return rollout.FromLabels(endpoint.GetLabels())
}

// onTrial finds the canary of an endpoint and its rule; nil = there is none.
func onTrial(endpoint *pb.Endpoint) (*trial, error) {
	rule, err := ruleOf(endpoint)
	if err != nil || rule == nil {
		return nil, err
	}
	t := &trial{id: rule.Canary, rule: rule}
	split := endpoint.GetTrafficSplit()
	if rule.Canary == rollout.Newest {
		var newest *pb.DeployedModel
		for _, d := range endpoint.GetDeployedModels() {
			of := d.GetSystemLabels()[ReplacesLabel]
			if endpoint.GetLabels()[FollowLabel] != "" && of == "" {
				continue // versions that replace others are meant, and nothing else
			}
			if split[d.GetId()] > 0 && (newest == nil || d.GetCreateTime().AsTime().After(newest.GetCreateTime().AsTime())) {
				newest, t.of = d, of
			}
		}
		t.id = newest.GetId()
	}
	if share := t.portion(split); share <= 0 || share >= 100 {
		return nil, nil //nolint:nilnil // no canary is no error
	}
	return t, nil
}

// portion is what the canary has, in percent of what its rule is about.
func (t *trial) portion(split map[string]int32) int32 {
	if whole := split[t.id] + split[t.of]; t.of != "" && whole > 0 {
		return 100 * split[t.id] / whole
	}
	return split[t.id]
}

// with is the traffic split when the canary has such a share.
func (t *trial) with(split map[string]int32, share int32) map[string]int32 {
	if t.of == "" {
		return rollout.With(split, t.id, share)
	}
	return rollout.Between(split, t.of, t.id, share)
}

// canaryOf gives the canary of an endpoint that was just read: the one on trial
// already, or a new one. The caller holds the lock.
func (e *Engine) canaryOf(endpoint *pb.Endpoint) *canary {
	t, err := onTrial(endpoint)
	if err != nil {
		e.cfg.Log.Error("a rule for a canary cannot be read", slog.String("endpoint", endpoint.GetName()), slog.Any("error", err))
	}
	old := e.canaries[endpoint.GetName()]
	if t == nil {
		if old != nil && !old.out.Load() {
			delete(e.canaries, endpoint.GetName())
		}
		return nil
	}
	share := t.portion(endpoint.GetTrafficSplit())
	if old != nil && old.id == t.id && (old.rule.Equal(t.rule) || old.out.Load()) {
		old.share.Store(share)
		return old
	}
	c := newCanary(endpoint.GetName(), *t, e.cfg.Now, e.judged)
	c.share.Store(share)
	e.canaries[endpoint.GetName()] = c
	return c
}

// baseline reports that a deployed model is one that the canary is compared with: the one
// that it is to replace, or all others.
func (c *canary) baseline(id string) bool {
	return id != c.id && (c.of == "" || id == c.of)
}

// others is the traffic split of the baseline.
func (c *canary) others(split map[string]int32) map[string]int32 {
	if c.of != "" {
		return map[string]int32{c.of: 100}
	}
	out := maps.Clone(split)
	delete(out, c.id)
	return out
}

// tried sends a request to one of an endpoint with a canary, and lets the canary's
// judge know. What fails there and may be sent again goes to the baseline, and does
// not count against the canary if it fails there too.
func (e *Engine) tried(ctx context.Context, at *entry, d *deployment, r Request) (*Response, error) {
	c := at.canary
	begin, warm := time.Now(), d.set.Ready() > 0
	took := func() time.Duration {
		if !warm || r.Explain { // an explanation takes its own time, whichever model gives it
			return -1
		}
		return time.Since(begin)
	}
	if d.id != c.id {
		resp, err := e.ask(ctx, at, d, r)
		if c.baseline(d.id) && !left(ctx, err) && (!r.Explain || d.explain != "") { // not what it never offered
			c.observe(rollout.Outcome{Failed: bad(resp, err), Took: took()})
		}
		return resp, err
	}
	resp, late, err := e.tryCanary(ctx, at, d, r, warm)
	if left(ctx, err) {
		return resp, err
	}
	o := rollout.Outcome{Canary: true, Failed: bad(resp, err), Took: took()}
	if late {
		o.Took = -1 // told already
	}
	if !o.Failed || !r.Again {
		c.observe(o)
		return resp, err
	}
	other := e.find(at.key(e.drawID(c.others(at.endpoint.GetTrafficSplit()))))
	if other == nil {
		c.observe(o)
		return resp, err
	}
	if resp != nil {
		if err := resp.Body.Close(); err != nil {
			e.cfg.Log.WarnContext(ctx, "cannot close the answer of a canary", slog.Any("error", err))
		}
	}
	again, err := e.ask(ctx, at, other, r)
	if o.Failed = !bad(again, err); !left(ctx, err) {
		c.observe(o)
	}
	return again, err
}

// tryCanary asks the canary. One that takes too long is told at once, and one that may
// be sent again is given up when the canary is taken back.
func (e *Engine) tryCanary(ctx context.Context, at *entry, d *deployment, r Request, warm bool) (resp *Response, late bool, err error) {
	c := at.canary
	var told atomic.Bool
	if limit := c.limit(); limit > 0 && warm && !r.Explain {
		timer := time.AfterFunc(limit, func() {
			told.Store(true)
			c.late()
		})
		defer timer.Stop()
	}
	try, cancel := context.WithCancelCause(ctx)
	stop := func() bool { return true }
	if r.Again {
		stop = context.AfterFunc(c.gone, func() { cancel(errRolledBack) })
	}
	resp, err = e.ask(try, at, d, r)
	if err != nil || !stop() {
		stop()
		cancel(nil)
		if err == nil {
			err = errors.Join(errRolledBack, resp.Body.Close())
		}
		return nil, told.Load(), err
	}
	resp.Body = &bounded{ReadCloser: resp.Body, end: func() { cancel(nil) }}
	return resp, told.Load(), nil
}

// left reports a request that failed since its caller went or has no more time.
func left(ctx context.Context, err error) bool { return err != nil && ctx.Err() != nil }

// bad is what a rule counts as failed: also what a model refuses, since one that
// refuses what the others take is as useless as one that breaks.
func bad(resp *Response, err error) bool { return err != nil || resp.Status >= http.StatusBadRequest }
