package console

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// panelView is what is selected: a task, or the instances of a step.
type panelView struct {
	Title, Around, Path string
	Kind                string
	Phase, Label        string
	Run                 bool // it is the run itself
	Note                string
	Failure             *failureView
	Facts               []fact
	Attempts            []attemptView
	Inputs, Outputs     []valueView
	Rounds              *roundsView
	Log                 *logPane
	Commands            []string
}

type fact struct {
	Name, Value string
	Time        time.Time
	Live        time.Time // counts up from here
	Href        string
}

type attemptView struct {
	Number       int
	Phase, Label string
	Started      time.Time
	Took         string
	Problem      string
	Href         string // of its log
	Shown        bool
}

type valueView struct {
	Name, Type, Text string
	Href             string // of an artifact
	Metadata         string
}

// roundsView is a page of the instances of a step.
type roundsView struct {
	What           string
	Rows           []rowView
	Values         []string
	States         []stateView
	Total          int
	From, To       int
	Earlier, Later string
}

// logPane is the window of a task's log that a page begins with.
type logPane struct {
	Task     string // its id
	Name     string // for `tategu logs`
	Workload string
	Piece    logWindow
	Live     bool
	Lines    string
}

// failureView is why a task failed, the line that says it first.
type failureView struct {
	Task, Href    string
	Line          string // that it failed at
	Message, Hint string
	Cause, Exit   string
	Tail          []string
	Commands      []string
}

func failureOf(t *pipeline.Failure) *failureView {
	if t == nil {
		return nil
	}
	v := &failureView{Message: t.Message, Hint: t.Hint, Cause: string(t.Cause), Line: firstLine(t.Message)}
	switch {
	case t.Signal != "":
		v.Exit = t.Signal
	case t.ExitCode == resource.NeverStarted:
		v.Exit = "never started"
	case t.ExitCode != 0:
		v.Exit = strconv.Itoa(t.ExitCode)
	}
	for _, line := range t.Tail {
		v.Tail = append(v.Tail, clip(line, 2000))
	}
	for _, line := range slices.Backward(v.Tail) {
		if line = strings.TrimSpace(line); line != "" {
			v.Line = clip(line, 400)
			break
		}
	}
	return v
}

// commands are the next steps after a failure, for a shell.
func commandsOf(run, task string) []string {
	return []string{
		"tategu why " + shell(run+"/"+task),
		"tategu debug " + shell(run) + " " + shell(task),
	}
}

// about loads a task for the panel.
func (c *Console) about(ctx context.Context, f *feed, p *part, l look) (panelView, error) {
	row, err := c.rows.Get(ctx, pipeline.KindTasks, p.key)
	if err != nil {
		return panelView{}, err
	}
	t, err := pipeline.ReadTask(row)
	if err != nil {
		return panelView{}, err
	}
	run := path.Base(f.name)
	v := panelView{
		Title: p.name, Around: above(p.path), Path: p.path, Kind: kindWord(p), Phase: p.phase.String(), Label: p.phase.Label(), Note: t.Reason,
		Inputs: values(t.Inputs), Outputs: values(t.Outputs), Attempts: attemptsOf(t, l, p, c.now()), Run: p.kind == pipeline.KindRun,
	}
	if v.Run {
		v.Title, v.Facts, v.Note = "The run", c.runFacts(f, t), ""
		return v, nil
	}
	if v.Failure = failureOf(t.Failure); v.Failure != nil {
		v.Failure.Commands = commandsOf(run, p.path)
	}
	v.Facts = c.facts(ctx, f, p, t)
	if n := len(t.Workload); n > 0 {
		shown := n
		if l.attempt > 0 {
			shown = min(l.attempt, n)
		}
		if v.Log, err = c.logOf(ctx, p, t.Workload[shown-1]); err != nil {
			return v, err
		}
		v.Log.Name = run + "/" + p.path
	}
	return v, nil
}

func kindWord(p *part) string {
	switch {
	case p.kind == pipeline.KindLoop:
		return "loop"
	case p.up != nil && p.up.kind == pipeline.KindLoop && !p.leaf():
		return "iteration"
	case p.kind == pipeline.KindGraph:
		return "group of tasks"
	case p.kind == pipeline.KindImporter:
		return "importer"
	default:
		return "task"
	}
}

// facts are the rest of what is known of a task, a line each.
func (c *Console) facts(ctx context.Context, f *feed, p *part, t *pipeline.Task) []fact {
	var out []fact
	add := func(name, value string) {
		if value != "" {
			out = append(out, fact{Name: name, Value: value})
		}
	}
	if p.phase == queued {
		if q, waits := c.machine.Place(p.workload); waits {
			add("In the queue", "number "+amount(q.Position)+" of "+amount(q.Length))
			add("Waits for", q.Waits)
		}
	} else if p.phase == running && p.leaf() {
		if known, err := c.logs.Workloads(ctx, p.key); err == nil { // it is a hint, and the next look may have it
			for _, w := range known {
				if w.ID == p.workload && w.Phase == string(runtime.Preparing) {
					add("Being prepared", or(w.Message, "environment"))
				}
			}
		}
	}
	if !t.Started.IsZero() {
		out = append(out, fact{Name: "Started", Time: t.Started})
		took := fact{Name: "Took", Value: span(p.took(c.now()))}
		if p.phase == running {
			took.Name, took.Live = "Running for", t.Started
		}
		out = append(out, took)
	}
	if !t.RetryAt.IsZero() && t.State == pipeline.Pending {
		out = append(out, fact{Name: "Tried again at", Time: t.RetryAt})
	}
	if t.State == pipeline.Skipped || t.Cached != "" {
		from, _, _ := strings.Cut(t.Cached, "/tasks/")
		name := "Taken over from"
		if t.CacheKey != "" {
			name = "From the cache, of"
		}
		out = append(out, fact{Name: name, Value: path.Base(from), Href: "/console/" + from})
	}
	if f.plan != nil && p.kind == pipeline.KindContainer {
		if program, ok := f.plan.ProgramOf(p.path); ok {
			add("Image", program.Image)
		}
	}
	add("Execution", strconv.FormatInt(t.ID, 10))
	return out
}

func (c *Console) runFacts(f *feed, t *pipeline.Task) []fact {
	job := f.job
	out := []fact{
		{Name: "Pipeline", Value: path.Base(job.GetJobDetail().GetPipelineContext().GetName())},
		{Name: "Service account", Value: job.GetServiceAccount()},
		{Name: "Outputs below", Value: job.GetRuntimeConfig().GetGcsOutputDirectory()},
	}
	for _, k := range slices.Sorted(maps.Keys(job.GetLabels())) {
		if k != pipeline.RunNumberLabel {
			out = append(out, fact{Name: "Label " + k, Value: job.Labels[k]})
		}
	}
	for _, w := range t.Warnings {
		out = append(out, fact{Name: "Warning", Value: w})
	}
	return slices.DeleteFunc(out, func(f fact) bool { return f.Value == "" || f.Value == "." })
}

// attemptsOf reads the attempts of a task out of its history.
func attemptsOf(t *pipeline.Task, l look, p *part, now time.Time) []attemptView {
	var out []attemptView
	for _, h := range t.History {
		n := len(out)
		switch {
		case h.State == pipeline.Running:
			a := attemptView{Number: n + 1, Phase: p.phase.String(), Label: p.phase.Label(), Started: h.Time, Took: span(now.Sub(h.Time))}
			if len(t.Workload) > n {
				a.Href = with(l.at(p.step.path, p.path), func(l *look) { l.attempt = n + 1 }).link()
			}
			out = append(out, a)
		case n > 0 && h.State != pipeline.Pending:
			ended := phaseOf(h.State, false)
			last := &out[n-1]
			last.Phase, last.Label, last.Took = ended.String(), ended.Label(), span(h.Time.Sub(last.Started))
			if h.Failure != nil {
				last.Problem = firstLine(h.Failure.Message)
			}
		}
	}
	if len(out) > 0 {
		shown := len(out)
		if l.attempt > 0 {
			shown = min(l.attempt, shown)
		}
		out[shown-1].Shown = true
	}
	return out
}

// mostValue is how much of a parameter a page shows.
const mostValue = 4000

// values are parameters, then artifacts, by name.
func values(v pipeline.Values) []valueView {
	var out []valueView
	for _, k := range slices.Sorted(maps.Keys(v.Parameters)) {
		out = append(out, valueView{Name: k, Text: clip(jsonOf(v.Parameters[k]), mostValue)})
	}
	for _, k := range slices.Sorted(maps.Keys(v.Artifacts)) {
		for i, a := range v.Artifacts[k] {
			name := k
			if i > 0 {
				name = ""
			}
			if i == perPage {
				out = append(out, valueView{Name: name, Text: "and " + amount(len(v.Artifacts[k])-i) + " more"})
				break
			}
			value := valueView{Name: name, Type: strings.TrimPrefix(or(a.Schema.Title, "system.Artifact"), "system."), Text: a.URI}
			if a.Name != "" {
				value.Href = "/console/" + a.Name
			}
			if len(a.Metadata) > 0 {
				value.Metadata = clip(jsonOf(a.Metadata), mostValue)
			}
			out = append(out, value)
		}
	}
	return out
}

// jsonOf writes a value as people read it: text as it is, the rest as JSON.
func jsonOf(v any) string {
	if s, ok := v.(string); ok {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // it was JSON
		return ""
	}
	return strings.TrimSpace(b.String())
}

// logOf is the window of a log that a page begins with.
func (c *Console) logOf(ctx context.Context, p *part, workload string) (*logPane, error) {
	v := &logPane{Task: strconv.FormatInt(p.id, 10), Workload: workload, Live: !p.phase.done()}
	var err error
	v.Piece, err = c.before(ctx, runtime.LogStream(p.key, workload), -1, windowSize)
	return v, err
}

// rounds gives the instances of a step.
func (c *Console) rounds(ctx context.Context, f *feed, s *step, l look) (*roundsView, error) {
	all := slices.Clone(s.rounds)
	v := &roundsView{What: "iterations"}
	if len(all) == 0 {
		all, v.What = slices.Clone(s.parts), "tasks"
	}
	var counts [phases]int
	for _, p := range all {
		if p.phase >= 0 {
			counts[p.phase]++
		}
	}
	if l.state != "" {
		all = slices.DeleteFunc(all, func(p *part) bool { return p.phase.String() != l.state })
	}
	slices.SortFunc(all, bySight)
	all, v.From, v.To, v.Total = paged(all, &l.round)
	if v.From > 1 {
		v.Earlier = with(l, func(l *look) { l.round-- }).link()
	}
	if v.To < v.Total {
		v.Later = with(l, func(l *look) { l.round++ }).link()
	}
	begin, length := f.extent(c.now())
	for _, p := range all {
		row := p.row(l, begin, length, c.now())
		row.Name, row.Around = p.name, ""
		if len(s.rounds) == 0 {
			row.Name = strings.TrimSuffix(above(p.path), "/")
		}
		v.Rows = append(v.Rows, row)
	}
	for p, n := range counts {
		if n > 0 {
			v.States = append(v.States, stateView{Name: phase(p).String(), Label: phase(p).Label(), Count: amount(n)})
		}
	}
	return v, c.items(ctx, v, all)
}

// items adds what the iterations on this page are over.
func (c *Console) items(ctx context.Context, v *roundsView, parts []*part) error {
	for _, p := range parts {
		text := ""
		if p.up != nil && p.up.kind == pipeline.KindLoop {
			row, err := c.rows.Get(ctx, pipeline.KindTasks, p.key)
			if err != nil {
				return err
			}
			t, err := pipeline.ReadTask(row)
			if err != nil {
				return err
			}
			for _, value := range values(t.Inputs) {
				text = clip(value.Text, 80)
			}
		}
		v.Values = append(v.Values, text)
	}
	return nil
}
