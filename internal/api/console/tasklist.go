package console

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"tategu/internal/pipeline"
)

// listView is a page of the tasks of a run, those that failed first.
type listView struct {
	Rows           []rowView
	States         []stateView // to choose from
	State, Find    string
	Total          int // that were chosen
	From, To       int // of these, on this page
	Earlier, Later string
	Hidden         map[string][]string // the rest of the look, for the form
}

// rowView is a task in a list.
type rowView struct {
	Name, Around      string // its name, and what it is in
	Href, Path        string
	Phase, Label      string
	Problem           string
	Started           time.Time
	After, Took       string // since the run began; how long
	Live              bool
	Left, Width       float64 // percent of the run
	Selected, Attempt bool
}

type stateView struct {
	Name, Label string
	Count       string
	Href        string
}

const perPage = 50

// bySight orders tasks as a person looks for them.
func bySight(a, b *part) int {
	rank := func(p *part) int {
		switch p.phase {
		case failed, running, queued:
			return int(p.phase)
		case waiting, notRun:
			return int(phases) + 1
		default:
			return int(phases)
		}
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), byTime(a.started, b.started), earlier(a, b))
}

// list gives a page of the tasks that do something.
func (f *feed) list(l look, now time.Time) listView {
	v := listView{State: l.state, Find: l.find}
	var chosen []*part
	for _, p := range f.order {
		if p.leaf() && p.current && (l.state == "" || p.phase.String() == l.state) && strings.Contains(p.path, l.find) {
			chosen = append(chosen, p)
		}
	}
	slices.SortFunc(chosen, bySight)
	chosen, v.From, v.To, v.Total = paged(chosen, &l.page)
	if v.From > 1 {
		v.Earlier = with(l, func(l *look) { l.page-- }).link()
	}
	if v.To < v.Total {
		v.Later = with(l, func(l *look) { l.page++ }).link()
	}
	begin, length := f.extent(now)
	for _, p := range chosen {
		v.Rows = append(v.Rows, p.row(l, begin, length, now))
	}
	for p, n := range f.step("").sum.Counts {
		if n > 0 || phase(p).String() == l.state {
			v.States = append(v.States, stateView{Name: phase(p).String(), Label: phase(p).Label(), Count: amount(n)})
		}
	}
	v.Hidden = map[string][]string{"open": l.open}
	for name, value := range map[string]string{"task": l.task, "step": l.step} {
		if value != "" {
			v.Hidden[name] = []string{value}
		}
	}
	return v
}

// paged cuts a page out of a list; a page that is not there becomes the last.
func paged[T any](all []T, page *int) (_ []T, from, to, total int) {
	total = len(all)
	*page = min(*page, max(1, (total+perPage-1)/perPage))
	start := (*page - 1) * perPage
	end := min(total, start+perPage)
	return all[start:end], min(start+1, total), end, total
}

func with(l look, change func(*look)) look {
	change(&l)
	return l
}

// extent is when the run began, and how long it has taken or takes.
func (f *feed) extent(now time.Time) (begin time.Time, length time.Duration) {
	begin = f.job.GetCreateTime().AsTime()
	if s := f.job.GetStartTime(); s != nil {
		begin = s.AsTime()
	}
	end := now
	if e := f.job.GetEndTime(); e != nil && f.ended() {
		end = e.AsTime()
	}
	return begin, max(end.Sub(begin), time.Millisecond)
}

func (p *part) row(l look, begin time.Time, length time.Duration, now time.Time) rowView {
	v := rowView{
		Name: p.name, Around: above(p.path), Path: p.path, Href: l.at(p.step.path, p.path).link(), Phase: p.phase.String(), Label: p.phase.Label(),
		Started: p.started, Took: span(p.took(now)), Live: p.phase == running, Selected: l.task == p.path,
	}
	if p.phase == failed || p.phase == notRun {
		v.Problem = p.problem
	}
	if p.started.IsZero() || p.phase == queued {
		v.Took = ""
		return v
	}
	v.After = "+" + or(span(p.started.Sub(begin)), "0 ms")
	v.Left = min(99, 100*max(0, float64(p.started.Sub(begin))/float64(length)))
	v.Width = min(100-v.Left, max(0.6, 100*float64(p.took(now))/float64(length)))
	return v
}

// failures gives the tasks that failed themselves, not what they are in, the first
// to fail first.
func (f *feed) failures() []*part {
	guilty := map[*part]bool{} // have a failed task in them
	for _, p := range f.order {
		if p.phase == failed && p.up != nil {
			guilty[p.up] = true
		}
	}
	var out []*part
	for _, p := range f.order {
		if p.phase == failed && p.current && !guilty[p] && p.kind != pipeline.KindRun {
			out = append(out, p)
		}
	}
	slices.SortStableFunc(out, func(a, b *part) int { return byTime(a.ended, b.ended) })
	return out
}
