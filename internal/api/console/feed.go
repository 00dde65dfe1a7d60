package console

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/graph"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// feed is a run as its pages show it, kept up to date from the store's changes.
// One feed serves all pages of its run.
type feed struct {
	name string
	rows Rows

	mu       sync.Mutex
	job      *pb.PipelineJob // without what it runs
	plan     *pipeline.Plan  // nil when it cannot be drawn
	planErr  error
	parts    map[string]*part // by key of the row
	byID     map[int64]*part
	order    []*part // as they were made, so that a task comes after what it is in
	steps    map[string]*step
	revision int64 // of the newest row
	counted  time.Time
	gone     bool // the run was deleted
	over     bool // nobody keeps the feed up to date any more
	pictures map[string]graph.Picture
	watchers map[chan struct{}]bool
}

// pageOfRows bounds what is read of a run at a time.
const pageOfRows = 1000

func newFeed(name string, rows Rows) *feed {
	return &feed{
		name: name, rows: rows, parts: map[string]*part{}, byID: map[int64]*part{}, steps: map[string]*step{},
		pictures: map[string]graph.Picture{}, watchers: map[chan struct{}]bool{},
	}
}

// load reads the run and all of its tasks.
func (f *feed) load(ctx context.Context, waits func(string) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.readJob(ctx); err != nil {
		return err
	}
	q := store.Query{Kind: pipeline.KindTasks, Parent: f.name, Limit: pageOfRows}
	for {
		rows, err := f.rows.List(ctx, q)
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		for _, row := range rows {
			if err := f.take(row); err != nil {
				return err
			}
		}
		if len(rows) < pageOfRows {
			break
		}
		q.After = rows[len(rows)-1].Key
	}
	f.arrange(0)
	f.count(waits)
	return nil
}

func (f *feed) readJob(ctx context.Context) error {
	msg := &pb.PipelineJob{}
	row, err := store.GetMessage(ctx, f.rows, resource.KindPipelineJobs, f.name, msg)
	if err != nil {
		return err
	}
	if f.plan == nil && f.planErr == nil {
		f.plan, f.planErr = pipeline.Parse(msg.PipelineSpec)
	}
	msg.PipelineSpec = nil
	f.job, f.revision = msg, max(f.revision, row.Revision)
	return nil
}

// take puts a task's row among the others.
func (f *feed) take(row store.Row) error {
	t, err := pipeline.ReadTask(row)
	if err != nil {
		return err
	}
	p := f.parts[row.Key]
	if p == nil {
		p = &part{key: row.Key, id: t.ID, parent: t.Parent, path: t.Path, name: t.Name, kind: t.Kind, created: t.Created}
		f.parts[row.Key], f.byID[t.ID] = p, p
		f.order = append(f.order, p)
		at := t.Path
		if f.plan != nil {
			at = f.plan.StepOf(at)
		}
		p.step = f.step(at)
	}
	p.state, p.round, p.attempt, p.started, p.ended, p.revision = t.State, t.Round, t.Attempt, t.Started, t.Ended, row.Revision
	if n := len(t.Workload); n > 0 {
		p.workload = t.Workload[n-1]
	}
	p.problem = firstLine(t.Reason)
	if t.Failure != nil {
		p.problem = firstLine(t.Failure.Message)
	}
	f.revision = max(f.revision, row.Revision)
	return nil
}

// step gives the step of a path, and makes those that it is in.
func (f *feed) step(path string) *step {
	if s := f.steps[path]; s != nil {
		return s
	}
	s := &step{path: path, name: path}
	f.steps[path] = s
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		s.name, s.above = path[i+1:], f.step(path[:i])
	} else if path != "" {
		s.above = f.step("")
	}
	return s
}

// arrange orders tasks as they were made, which puts each after what it is in. The
// first of them, sorted in number, are in order.
func (f *feed) arrange(sorted int) {
	added := f.order[sorted:]
	slices.SortFunc(added, earlier)
	if sorted > 0 && len(added) > 0 && earlier(f.order[sorted-1], added[0]) > 0 {
		slices.SortFunc(f.order, earlier)
	}
}

func earlier(a, b *part) int {
	if c := a.created.Compare(b.created); c != 0 {
		return c
	}
	if c := cmp.Compare(strings.Count(a.path, "/"), strings.Count(b.path, "/")); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(len(a.path), len(b.path)), cmp.Compare(a.path, b.path)) // item 2 before item 10
}

// follow keeps the feed up to date until ctx ends or the run is deleted. What
// happens within the pause is one change to those that look.
func (f *feed) follow(ctx context.Context, w store.Watcher, waits func(string) bool) error {
	for {
		changes, err := w.Next(ctx)
		if err != nil {
			return err
		}
		changed, err := f.apply(ctx, changes, waits)
		if err != nil {
			return err
		}
		if !changed {
			continue
		}
		if f.tell() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(feedPause):
		}
	}
}

// feedPause is the least time between two changes that pages are told.
const feedPause = 200 * time.Millisecond

// apply takes changes of rows; it reports whether any is of this run.
func (f *feed) apply(ctx context.Context, changes []store.Change, waits func(string) bool) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, made := false, len(f.order)
	for _, c := range changes {
		var err error
		switch {
		case c.Kind == resource.KindPipelineJobs && c.Key == f.name:
			if err = f.readJob(ctx); resource.IsNotFound(err) {
				f.gone, err = true, nil
			}
		case c.Kind == pipeline.KindTasks && strings.HasPrefix(c.Key, f.name+"/tasks/"):
			var row store.Row
			if row, err = f.rows.Get(ctx, c.Kind, c.Key); resource.IsNotFound(err) {
				continue // with its run, which is told too
			}
			if err == nil {
				err = f.take(row)
			}
		default:
			continue
		}
		if err != nil {
			return false, err
		}
		changed = true
	}
	f.arrange(made)
	if changed {
		f.count(waits)
	}
	return changed, nil
}

// tell wakes those that look; it reports that there is nothing more to come.
func (f *feed) tell() (gone bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		select {
		case w <- struct{}{}:
		default: // it has not looked at the last change yet
		}
	}
	return f.gone
}

// finish tells those that look that the feed is over.
func (f *feed) finish() {
	f.mu.Lock()
	f.over = true
	f.mu.Unlock()
	f.tell()
}

// watch gives a channel that has a value after a change, and what ends that.
func (f *feed) watch() (<-chan struct{}, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	w := make(chan struct{}, 1)
	f.watchers[w] = true
	return w, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.watchers, w)
	}
}

// ended reports that nothing of the run will change.
func (f *feed) ended() bool { return f.gone || pipeline.Finished(f.job.State) }
