package serving

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/serving/follow"
	"tategu/internal/store"
)

// follower brings about what endpoints follow. It learns of moves of aliases, and of
// what becomes of deployments, from the rows that change.
type follower struct {
	engine *Engine
	watch  store.Watcher
	again  map[string]bool // endpoints whose last try met an error
	due    time.Time       // when these are tried again
}

func (e *Engine) newFollower() *follower {
	return &follower{
		engine: e, again: map[string]bool{},
		watch: e.cfg.Store.Watch(resource.KindFollows, resource.KindModelAliases, resource.KindEndpoints, resource.KindDeployments),
	}
}

func (f *follower) close() { f.watch.Close() }

// run goes on until ctx ends. What moved while no server ran is seen at the start.
func (f *follower) run(ctx context.Context) {
	rows, err := f.engine.cfg.Store.List(ctx, store.Query{Kind: resource.KindFollows})
	for err != nil && ctx.Err() == nil {
		f.engine.cfg.Log.ErrorContext(ctx, "cannot read what endpoints follow", slog.Any("error", err))
		pause(ctx, retryAfter)
		rows, err = f.engine.cfg.Store.List(ctx, store.Query{Kind: resource.KindFollows})
	}
	for _, row := range rows {
		f.pursue(ctx, row.Key)
	}
	for ctx.Err() == nil {
		for _, name := range f.next(ctx) {
			f.pursue(ctx, name)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// next waits for endpoints to look at.
func (f *follower) next(ctx context.Context) []string {
	waiting, cancel := ctx, context.CancelFunc(func() {})
	if len(f.again) > 0 {
		waiting, cancel = context.WithDeadline(ctx, f.due)
	}
	defer cancel()
	changes, err := f.watch.Next(waiting)
	if err != nil && ctx.Err() == nil && waiting.Err() == nil {
		f.engine.cfg.Log.ErrorContext(ctx, "cannot watch what endpoints follow", slog.Any("error", err))
		pause(ctx, retryAfter)
	}
	found := map[string]bool{}
	if len(f.again) > 0 && !time.Now().Before(f.due) {
		found, f.again = f.again, map[string]bool{}
	}
	for _, c := range changes {
		f.touched(c, found)
	}
	return slices.Sorted(maps.Keys(found))
}

// touched adds the endpoints that a change is about, of those that follow.
func (f *follower) touched(c store.Change, found map[string]bool) {
	if c.Kind == resource.KindFollows {
		found[c.Key] = true
		return
	}
	f.engine.mu.RLock()
	defer f.engine.mu.RUnlock()
	if c.Kind == resource.KindModelAliases {
		_, alias, _ := strings.Cut(c.Key, "@")
		for endpoint, s := range f.engine.follows {
			if s.Alias == alias {
				found[endpoint] = true
			}
		}
		return
	}
	endpoint, _, _ := strings.Cut(c.Key, "/deployedModels/")
	if _, ok := f.engine.follows[endpoint]; ok {
		found[endpoint] = true
	}
}

// pursue takes the steps that are due for an endpoint.
func (f *follower) pursue(ctx context.Context, name string) {
	delete(f.again, name)
	err := f.engine.pursue(ctx, name)
	if err == nil || ctx.Err() != nil {
		return
	}
	f.engine.cfg.Log.ErrorContext(ctx, "cannot follow an alias", slog.String("endpoint", name), slog.Any("error", err))
	if len(f.again) == 0 {
		f.due = time.Now().Add(retryAfter)
	}
	f.again[name] = true
}

// pursue asks about rights outside of the transaction in which it starts a version, since
// that may take a while.
func (e *Engine) pursue(ctx context.Context, name string) error {
	var g *grant
	for {
		at, err := look(ctx, e.cfg.Store, name)
		if resource.IsNotFound(err) {
			e.unfollow(name)
			return nil
		}
		if err != nil {
			return err
		}
		step := follow.Decide(at.state, at.wish, at.view)
		if step.Do == follow.Nothing && step.Phase == at.state.Phase && step.Reason == at.state.Reason && !at.stale() {
			e.remember(name, at.state)
			return nil
		}
		if old := at.deployed(step.Old); step.Do == follow.Start && !g.covers(at.view.Target, old) {
			if g, err = e.granted(ctx, at, old); err != nil {
				return err
			}
		}
		over, err := e.advanceFollow(ctx, name, g)
		if err != nil || over {
			return err
		}
	}
}

// advanceFollow takes all steps that are due in one transaction, but those that need
// another answer about rights; over says that there are none of these.
func (e *Engine) advanceFollow(ctx context.Context, name string, g *grant) (over bool, err error) {
	var t *turn
	gone := false
	err = e.cfg.Store.Update(ctx, func(tx store.Tx) error {
		at, err := look(ctx, tx, name)
		if err != nil {
			gone = resource.IsNotFound(err)
			return err
		}
		t = &turn{sight: at, tx: tx, grant: g, now: e.cfg.Now()}
		over, err = t.take(ctx)
		return err
	})
	if gone {
		e.unfollow(name)
		return true, nil
	}
	if err != nil {
		return false, err
	}
	for _, told := range t.told {
		e.cfg.Log.LogAttrs(ctx, told.level, "follow", append([]slog.Attr{slog.String("endpoint", name), slog.String("alias", t.state.Alias)}, told.attrs...)...)
	}
	if t.ended {
		e.unfollow(name)
		return true, nil
	}
	e.remember(name, t.state)
	for _, outcome := range t.outcomes {
		e.metrics.rolledOver(name, outcome)
	}
	e.forget(name)
	return over, nil
}

// remember keeps how far an endpoint is, for its status.
func (e *Engine) remember(name string, s follow.State) {
	e.mu.Lock()
	e.follows[name] = s
	e.mu.Unlock()
	e.metrics.followed(name, s)
}

func (e *Engine) unfollow(name string) {
	e.mu.Lock()
	delete(e.follows, name)
	e.mu.Unlock()
	e.metrics.unfollowed(name)
}

// onFollow is the sentence about following in the status of a deployed model.
func (e *Engine) onFollow(key string) string {
	endpoint, id, _ := strings.Cut(key, "/deployedModels/")
	e.mu.RLock()
	defer e.mu.RUnlock()
	if s, ok := e.follows[endpoint]; ok && s.Phase != "" && s.About(id) {
		return s.String()
	}
	return ""
}
