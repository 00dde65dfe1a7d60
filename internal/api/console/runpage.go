package console

import (
	"context"
	"net/http"
	"path"
	"slices"
	"time"

	"tategu/internal/pipeline"
)

// runPage is what the page of a run shows.
type runPage struct {
	frame
	ID, Name, Pipeline string
	Phase, Label       string
	Live, Gone         bool
	Created, Started   time.Time
	Took               string
	Done, Total        int
	Counts             []stateView
	Revision           int64
	Error              *failureView // of a run in which no task failed
	Failures           []*failureView
	MoreFailed         []rowView
	NotNamed           int // failed tasks that are in neither
	Picture            pictureView
	Panel              panelView
	List               listView
	Part               bool // only what changes
}

// Failures that are shown in full, and those that are named.
const (
	mostTold  = 1
	mostNamed = 12
)

// runPage shows one run. ?part=live leaves out what does not change while a run goes
// on: the picture, whose states are sent as events.
func (c *Console) runPage(w http.ResponseWriter, r *http.Request, v resourceView) error {
	l, err := lookOf(r.URL.Query())
	if err != nil {
		return err
	}
	f, give, err := c.feeds.get(r.Context(), v.Name)
	if err != nil {
		return err
	}
	defer give()
	f.recount(c.machine.Waits, c.now())
	page, err := c.viewRun(r.Context(), f, l, r.URL.Query().Get("part") == "live")
	if err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	if page.Part {
		return c.render(w, r, runPart(page))
	}
	return c.render(w, r, runWhole(page))
}

// viewRun gathers the page while the feed stands still.
func (c *Console) viewRun(ctx context.Context, f *feed, l look, live bool) (*runPage, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	job, now := f.job, c.now()
	sum := f.step("").sum
	p := phaseOfRun(job.State)
	page := &runPage{
		frame: c.frame(or(job.DisplayName, path.Base(f.name))), ID: path.Base(f.name), Name: f.name,
		Pipeline: path.Base(job.GetJobDetail().GetPipelineContext().GetName()), Phase: p.String(), Label: p.Label(), Live: !f.ended(), Gone: f.gone,
		Created: job.GetCreateTime().AsTime(), Done: sum.Done(), Total: sum.Total(), Revision: f.revision, Part: live,
	}
	if job.StartTime != nil {
		page.Started = job.StartTime.AsTime()
		_, length := f.extent(now)
		page.Took = span(length)
	}
	for p, n := range sum.Counts {
		if n > 0 {
			page.Counts = append(page.Counts, stateView{Name: phase(p).String(), Label: phase(p).lower(), Count: amount(n), Href: with(l, func(l *look) { l.state, l.page = phase(p).String(), 1 }).link() + "#tasks"})
		}
	}
	broken := f.failures()
	if err := c.tellFailures(ctx, page, f, broken, l); err != nil {
		return nil, err
	}
	s, task := f.selected(l, broken)
	if task != nil {
		l.task = task.path
	}
	var err error
	if page.Panel, err = c.panel(ctx, f, s, task, l); err != nil {
		return nil, err
	}
	if len(page.Failures) > 0 && page.Failures[0].Task == page.Panel.Path {
		page.Panel.Failure = nil // it is told above
	}
	page.List = f.list(l, now)
	if !live {
		for s.path != "" && !f.drawn(s.path, l) {
			s = f.step(above(s.path))
		}
		page.Picture = f.draw(l, s.path)
	}
	return page, nil
}

// drawn reports that a step is in the picture: all that it is in is open.
func (f *feed) drawn(at string, l look) bool {
	for at = above(at); at != ""; at = above(at) {
		if !slices.Contains(l.open, at) {
			return false
		}
	}
	return true
}

// tellFailures puts what failed on the page, the first of it in full.
func (c *Console) tellFailures(ctx context.Context, page *runPage, f *feed, broken []*part, l look) error {
	begin, length := f.extent(c.now())
	for i, p := range broken {
		if i >= mostTold {
			if i >= mostTold+mostNamed {
				page.NotNamed = len(broken) - i
				return nil
			}
			page.MoreFailed = append(page.MoreFailed, p.row(l, begin, length, c.now()))
			continue
		}
		row, err := c.rows.Get(ctx, pipeline.KindTasks, p.key)
		if err != nil {
			return err
		}
		t, err := pipeline.ReadTask(row)
		if err != nil {
			return err
		}
		if v := failureOf(t.Failure); v != nil {
			v.Task, v.Href, v.Commands = p.path, l.at(p.step.path, p.path).link(), commandsOf(page.ID, p.path)
			page.Failures = append(page.Failures, v)
		}
	}
	if e := f.job.GetError(); len(broken) == 0 && e != nil {
		page.Error = &failureView{Line: firstLine(e.GetMessage()), Message: e.GetMessage(), Commands: []string{"tategu why " + shell(page.ID)}}
	}
	return nil
}

// selected finds what a person looks at: what the address says, else what failed
// first, else the run as a whole.
func (f *feed) selected(l look, broken []*part) (*step, *part) {
	if l.task != "" {
		for _, p := range f.order {
			if p.path == l.task {
				return p.step, p
			}
		}
	}
	if l.step != "" {
		s := f.steps[l.step]
		if s == nil {
			return &step{path: l.step, name: l.step[len(above(l.step)):], sum: summary{Phase: none}}, nil
		}
		if len(s.parts) == 1 {
			return s, s.parts[0]
		}
		return s, nil
	}
	if len(broken) > 0 {
		return broken[0].step, broken[0]
	}
	for _, p := range f.order {
		if p.kind == pipeline.KindRun {
			return f.step(""), p
		}
	}
	return f.step(""), nil
}

// panel shows what is selected.
func (c *Console) panel(ctx context.Context, f *feed, s *step, task *part, l look) (panelView, error) {
	sum := s.sum.change()
	v := panelView{Title: or(path.Base(s.path), "The run"), Around: above(s.path), Path: s.path, Kind: "task", Phase: sum.Phase, Label: sum.Label}
	if task == nil && len(s.parts) == 0 {
		v.Note = "The run has not come to this task."
	}
	var err error
	if task != nil {
		if v, err = c.about(ctx, f, task, l); err != nil {
			return v, err
		}
	}
	if s.path != "" && (task == nil && len(s.parts) > 1 || task != nil && task.kind == pipeline.KindLoop) {
		v.Rounds, err = c.rounds(ctx, f, s, l)
	}
	return v, err
}
