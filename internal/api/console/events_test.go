package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// message is one event of a stream.
type message struct {
	id, event, data string
}

// news is the data of an event run.
type news struct {
	Run   struct{ Phase string }
	Steps map[string]struct{ Phase, Label, Text string }
	Ended bool
	Gone  bool
}

func (m message) news(t *testing.T) news {
	t.Helper()
	var n news
	if err := json.Unmarshal([]byte(m.data), &n); err != nil || m.event != "run" {
		t.Fatalf("%+v: %v", m, err)
	}
	return n
}

// reader reads events.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
}

// listen opens a stream of events.
func (w *world) listen(query, last string) *reader {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.server.URL+"/tategu/v1/run/events?resource="+aRun+query, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // by the reader's close
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		w.t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	return &reader{t: w.t, lines: lines, close: func() { cancel(); resp.Body.Close() }}
}

// next gives the next event; false at the end of the stream.
func (r *reader) next() (m message, ok bool) {
	for r.lines.Scan() {
		switch name, value, _ := strings.Cut(r.lines.Text(), ": "); name {
		case "id":
			m.id = value
		case "event":
			m.event = value
		case "data":
			m.data = value
		case "":
			if m.event != "" {
				return m, true
			}
		}
	}
	return m, false
}

// until reads up to an event that is wanted.
func (r *reader) until(what string, want func(message) bool) message {
	r.t.Helper()
	for {
		m, ok := r.next()
		if !ok {
			r.t.Fatalf("the stream ended before %s (%v)", what, r.lines.Err())
		}
		if want(m) {
			return m
		}
	}
}

// step reads until a step is in a phase.
func (r *reader) step(name, phase string) message {
	r.t.Helper()
	return r.until(name+" "+phase, func(m message) bool { return m.event == "run" && m.news(r.t).Steps[name].Phase == phase })
}

func (w *world) liveRun() {
	w.run(&pb.PipelineJob{Name: aRun, State: pb.PipelineState_PIPELINE_STATE_RUNNING, PipelineSpec: irOf(w.t, "a", "b a"), StartTime: timestamppb.New(w.begin)})
	w.task(
		aRun,
		pipeline.Task{Kind: pipeline.KindRun, State: pipeline.Running, Attempt: 1},
		pipeline.Task{Path: "a", State: pipeline.Running, Round: 1, Attempt: 1, Started: w.begin, Workload: []string{"wa"}},
		pipeline.Task{Path: "b", State: pipeline.Pending, Round: 1},
	)
}

// TestEvents: a reader hears what changes and nothing twice, one that comes again
// hears what it missed, also from another server, and the stream ends with the run.
func TestEvents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.liveRun()
	r := w.listen("", "")
	defer r.close()
	first := r.step("a", "running")
	if n := first.news(t); n.Steps["b"].Phase != "waiting" || n.Run.Phase != "running" || n.Ended {
		t.Errorf("at first %+v", n)
	}
	w.task(aRun, pipeline.Task{Path: "a", State: pipeline.Succeeded, Round: 1, Attempt: 1, Started: w.begin, Ended: w.begin})
	second := r.step("a", "succeeded")
	if n := second.news(t); len(n.Steps) != 1 {
		t.Errorf("b did not change: %+v", n)
	}
	r.close()

	w.task(aRun, pipeline.Task{Path: "b", State: pipeline.Failed, Round: 1, Attempt: 1, Started: w.begin, Ended: w.begin, Failure: &pipeline.Failure{Message: "no"}})
	other := *w
	other.server = another(t, w.rows, w.output)
	for name, again := range map[string]*reader{
		"by the header": w.listen("&after=0", second.id), "by the query": w.listen("&after="+second.id, ""), "another server": other.listen("", second.id),
	} {
		m := again.step("b", "failed")
		if n := m.news(t); len(n.Steps) != 1 {
			t.Errorf("%s: what was missed is %+v, want b alone", name, n)
		}
		again.close()
	}

	last := w.listen("", second.id)
	defer last.close()
	last.step("b", "failed")
	w.run(&pb.PipelineJob{Name: aRun, State: pb.PipelineState_PIPELINE_STATE_FAILED, PipelineSpec: irOf(t, "a", "b a"), StartTime: timestamppb.New(w.begin), EndTime: timestamppb.Now()})
	last.until("the end of the run", func(m message) bool { return m.event == "run" && m.news(t).Ended })
	last.until("the end", func(m message) bool { return m.event == "end" })
	if m, ok := last.next(); ok {
		t.Errorf("after the end %+v", m)
	}
}

// TestEventsOfLog: the output of the task that is looked at comes along, byte by byte,
// whole characters at a time, and a reader that is far behind goes on near its end.
func TestEventsOfLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.liveRun()
	name := taskName(aRun, idOf("a")) + "|wa"
	w.output.add(name, "one\n")
	r := w.listen(fmt.Sprintf("&after=0-4&task=%d&workload=wa", idOf("a")), "")
	defer r.close()
	r.step("a", "running")
	type piece struct {
		Offset, End int64
		Text        string
		Skipped     bool
	}
	log := func(r *reader) (p piece, id string) {
		m := r.until("output", func(m message) bool { return m.event == "log" })
		if err := json.Unmarshal([]byte(m.data), &p); err != nil {
			t.Fatal(err)
		}
		return p, m.id
	}
	w.output.add(name, "tw\xc3")
	if p, _ := log(r); p.Text != "tw" || p.Offset != 4 || p.End != 6 {
		t.Errorf("%+v", p)
	}
	w.output.add(name, "\xb6\n")
	p, id := log(r)
	if p.Text != "ö\n" || p.End != 9 || !strings.HasSuffix(id, "-9") {
		t.Errorf("%+v %s", p, id)
	}
	r.close()

	w.output.add(name, strings.Repeat("a line of sixteen", 100_000)+"\nlast\n")
	far := w.listen(fmt.Sprintf("&task=%d&workload=wa", idOf("a")), id)
	defer far.close()
	p, _ = log(far)
	if !p.Skipped || p.End != 9+1_700_006 || !strings.HasSuffix(p.Text, "\nlast\n") || p.End-p.Offset > 70_000 || p.End-p.Offset < 30_000 {
		t.Errorf("far behind: %d to %d, %v", p.Offset, p.End, p.Skipped)
	}
	w.output.add(name, "bye")
	w.task(aRun, pipeline.Task{Path: "a", State: pipeline.Succeeded, Round: 1, Attempt: 1, Started: w.begin, Ended: w.begin, Workload: []string{"wa"}})
	if p, _ = log(far); p.Text != "bye" {
		t.Errorf("at the end %+v", p)
	}
	if code, text := get(t, w.server.URL+fmt.Sprintf("/tategu/v1/logs/window?resource=%s/tasks/%d&workload=wa&before=9&limit=5", aRun, idOf("a"))); code != http.StatusOK || !strings.Contains(text, `"offset":4,"end":9,"text":"twö\n"`) {
		t.Errorf("a window: %d %s", code, text)
	}
}

// TestEventsDeleted: a run that is deleted while it is looked at.
func TestEventsDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.liveRun()
	r := w.listen("", "")
	defer r.close()
	r.step("a", "running")
	err := w.rows.Update(t.Context(), func(tx store.Tx) error {
		if err := pipeline.Delete(t.Context(), tx, aRun); err != nil {
			return err
		}
		return tx.Delete(t.Context(), resource.KindPipelineJobs, aRun)
	})
	if err != nil {
		t.Fatal(err)
	}
	r.until("the news", func(m message) bool { return m.event == "run" && m.news(t).Gone })
	if code, _ := get(t, w.server.URL+"/tategu/v1/run/changes?resource="+aRun); code != http.StatusNotFound {
		t.Errorf("then it is %d", code)
	}
}

// TestEventsRefused: what is wrong with a question, and other projects' runs.
func TestEventsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.liveRun()
	put(t, w.rows, &pb.CustomJob{Name: job})
	for query, want := range map[string]int{
		"resource=" + aRun + "&after=x": 400, "resource=" + aRun + "&after=1-x": 400, "resource=" + aRun + "&workload=w&task=x": 400,
		"resource=projects/other/locations/l/pipelineJobs/1": 403, "resource=projects/p/locations/l/pipelineJobs/none": 404,
		"resource=" + job: 404, "": 400,
	} {
		if code, text := get(t, w.server.URL+"/tategu/v1/run/events?"+query); code != want {
			t.Errorf("%s: %d %s, want %d", query, code, text, want)
		}
	}
	code, text := get(t, w.server.URL+"/tategu/v1/run/changes?resource="+aRun)
	if code != http.StatusOK || !strings.Contains(text, `"a":{"phase":"running"`) {
		t.Errorf("asked once: %d %s", code, text)
	}
	for _, path := range []string{"/console/projects/other/locations/l/pipelineJobs/1", "/tategu/v1/logs/window?resource=projects/other/locations/l/pipelineJobs/1/tasks/1&workload=w"} {
		if code, _ := get(t, w.server.URL+path); code != http.StatusForbidden {
			t.Errorf("%s: %d", path, code)
		}
	}
}

// TestReadersLeave: readers that come and go, and a server that goes down under them,
// leave nothing behind.
func TestReadersLeave(t *testing.T) { //nolint:paralleltest // it counts goroutines
	before := goleak.IgnoreCurrent()
	t.Run("many", func(t *testing.T) {
		w := newWorld(t)
		w.liveRun()
		for range 20 {
			r := w.listen("", "")
			r.step("a", "running")
			r.close()
		}
		var open []*reader
		for range 5 {
			r := w.listen(fmt.Sprintf("&task=%d&workload=wa", idOf("a")), "")
			r.step("a", "running")
			open = append(open, r)
		}
		w.end()
		for _, r := range open {
			if _, err := io.Copy(io.Discard, scanned{r.lines}); err != nil {
				t.Errorf("the stream of a server that goes down: %v", err)
			}
			r.close()
		}
	})
	http.DefaultClient.CloseIdleConnections()
	if err := goleak.Find(before); err != nil {
		t.Error(err)
	}
}

// scanned reads what is left of a stream.
type scanned struct{ *bufio.Scanner }

func (s scanned) Read([]byte) (int, error) {
	if s.Scan() {
		return 0, nil
	}
	if err := s.Err(); err != nil {
		return 0, err
	}
	return 0, io.EOF
}

// TestLongLoop: a loop of thousands is one counted step, and its tasks come in pages.
func TestLongLoop(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(&pb.PipelineJob{Name: aRun, State: pb.PipelineState_PIPELINE_STATE_RUNNING, PipelineSpec: irOf(t, "loop"), StartTime: timestamppb.New(w.begin)})
	tasks := []pipeline.Task{{Kind: pipeline.KindRun, State: pipeline.Running, Attempt: 1}, {Path: "loop", Kind: pipeline.KindLoop, State: pipeline.Running, Round: 1, Started: w.begin}}
	const many = 5000
	for i := range many {
		path := fmt.Sprintf("loop/loop-%d", i)
		tasks = append(
			tasks,
			pipeline.Task{Path: path, Kind: pipeline.KindGraph, State: pipeline.Succeeded, Attempt: 1, Started: w.begin, Ended: w.begin.Add(time.Second)},
			pipeline.Task{Path: path + "/body", State: pipeline.Succeeded, Round: 1, Attempt: 1, Started: w.begin, Ended: w.begin.Add(time.Second)},
		)
	}
	tasks[7].State, tasks[7].Failure = pipeline.Failed, &pipeline.Failure{Message: "the third"}
	w.task(aRun, tasks...)
	start := time.Now()
	page := w.page("?step=loop")
	t.Logf("%d tasks: the first page in %s, %d bytes", len(tasks), time.Since(start), len(page))
	contains(t, "the loop", page, `aria-label="loop: Running, 5,000/5,000 · 1 failed"`, "5,000 iterations", "1–50 of 5,000")
	if len(page) > 150_000 {
		t.Errorf("the page has %d bytes", len(page))
	}
	contains(t, "page 100", w.page("?page=100&step=loop&round=100"), "4,951–5,000 of 5,000", "loop/loop-4998")
	r := w.listen("", "")
	defer r.close()
	r.until("counts", func(m message) bool {
		return m.event == "run" && m.news(t).Steps["loop"].Text == "5,000/5,000 · 1 failed"
	})
	w.task(aRun, pipeline.Task{Path: "loop/loop-9/body", State: pipeline.Failed, Round: 1, Attempt: 1, Started: w.begin, Ended: w.begin})
	r.until("new counts", func(m message) bool {
		return m.event == "run" && m.news(t).Steps["loop"].Text == "5,000/5,000 · 2 failed"
	})
}
