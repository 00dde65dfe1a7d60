package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// A page follows its run by one stream of server-sent events (WHATWG HTML, 9.2):
//
//	run   what changed since the id that the reader had last, or all of it
//	log   more output of the task that the reader looks at
//	beat  nothing happened; a reader that hears none of these is cut off
//	end   nothing more will come
//
// An id is a revision of the store and an offset in the log. Both outlive the server,
// so that a reader catches up with another one too.
const (
	beatEvery = 15 * time.Second
	lookEvery = time.Second // for what no row tells: the queue
	retryWait = time.Second // of a reader that was cut off
)

// change is what a reader of a run's page does not know yet.
type change struct {
	Revision int64                 `json:"revision"`
	Run      runChange             `json:"run"`
	Steps    map[string]stepChange `json:"steps"`
	Ended    bool                  `json:"ended,omitempty"`
	Gone     bool                  `json:"gone,omitempty"`
}

type runChange struct {
	Phase string `json:"phase"`
	Label string `json:"label"`
	Done  int    `json:"done"`
	Total int    `json:"total"`
}

type stepChange struct {
	Phase string `json:"phase"`
	Label string `json:"label"`
	Text  string `json:"text"`
}

func (s summary) change() stepChange {
	return stepChange{Phase: s.Phase.String(), Label: s.Phase.Label(), Text: s.Text()}
}

// since gives what changed after a revision, other than what was sent before. What
// runs may have begun to wait, which no revision tells.
func (f *feed) since(after int64, sent map[string]summary) (change, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := change{Revision: f.revision, Steps: map[string]stepChange{}, Ended: f.ended(), Gone: f.gone}
	total := f.step("").sum
	p := phaseOfRun(f.job.State)
	c.Run = runChange{Phase: p.String(), Label: p.Label(), Done: total.Done(), Total: total.Total()}
	news := f.revision > after || c.Gone
	for path, s := range f.steps {
		before, known := sent[path]
		switch {
		case known && before == s.sum:
			continue
		case !known && s.revision <= after && s.sum.Counts[running]+s.sum.Counts[queued] == 0:
			continue
		}
		sent[path] = s.sum
		if path != "" {
			c.Steps[path] = s.sum.change()
		}
		news = true
	}
	return c, news
}

// recount brings up to date who waits in the queue.
func (f *feed) recount(waits func(string) bool, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended() || f.step("").sum.Counts[running]+f.step("").sum.Counts[queued] == 0 || now.Sub(f.counted) < lookEvery/2 {
		return
	}
	f.counted = now
	f.count(waits)
}

// changes answers once what events tells for as long as it is read.
func (c *Console) changes(w http.ResponseWriter, r *http.Request) error {
	f, give, err := c.feedOf(r)
	if err != nil {
		return err
	}
	defer give()
	after, _, err := positionOf(r)
	if err != nil {
		return err
	}
	f.recount(c.machine.Waits, c.now())
	news, _ := f.since(after, map[string]summary{})
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(news)
}

// feedOf gives the feed of ?resource=NAME, after a permission check.
func (c *Console) feedOf(r *http.Request) (*feed, func(), error) {
	v, err := c.load(r, r.URL.Query().Get("resource"))
	if err != nil {
		return nil, nil, err
	}
	if v.Kind != resource.KindPipelineJobs {
		return nil, nil, resource.Errorf(codes.NotFound, "%s is not a run of a pipeline", v.Name).WithHint("`tategu runs` lists them")
	}
	return c.feeds.get(r.Context(), v.Name)
}

// positionOf reads how far a reader is: a browser that connects again says so in a
// header, and repeats the query that it began with.
func positionOf(r *http.Request) (revision, offset int64, err error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("after")
	}
	if text == "" {
		return 0, 0, nil
	}
	first, second, _ := strings.Cut(text, "-")
	if revision, err = strconv.ParseInt(first, 10, 64); err == nil && second != "" {
		offset, err = strconv.ParseInt(second, 10, 64)
	}
	if err != nil || revision < 0 || offset < 0 {
		return 0, 0, resource.Invalid("after", "%.40q is not REVISION-OFFSET", text)
	}
	return revision, offset, nil
}

// stream writes server-sent events.
type stream struct {
	w        http.ResponseWriter
	revision int64
	offset   int64
}

func (s *stream) send(event string, data any) error {
	text, err := json.Marshal(data)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.w, "id: %d-%d\nevent: %s\ndata: %s\n\n", s.revision, s.offset, event, text); err != nil {
		return err
	}
	return http.NewResponseController(s.w).Flush()
}

// events streams what happens to ?resource=RUN, and with ?task=ID&workload=ID the
// output of that program.
func (c *Console) events(w http.ResponseWriter, r *http.Request) error {
	f, give, err := c.feedOf(r)
	if err != nil {
		return err
	}
	defer give()
	s := &stream{w: w}
	if s.revision, s.offset, err = positionOf(r); err != nil {
		return err
	}
	l, err := c.followed(r, f)
	if err != nil {
		return err
	}
	wake, end := f.watch()
	defer end()
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // what nginx needs to pass events on at once
	if _, err := fmt.Fprintf(w, "retry: %d\n\n", retryWait.Milliseconds()); err != nil {
		return nil // the reader is gone
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		return nil
	}
	return c.stream(r, s, f, l, wake)
}

// stream sends until the run has ended and all is told, or the reader or the server
// goes. Then the reader may come back.
func (c *Console) stream(r *http.Request, s *stream, f *feed, l *followed, wake <-chan struct{}) error {
	look, beat := time.NewTicker(lookEvery), time.NewTicker(beatEvery)
	defer look.Stop()
	defer beat.Stop()
	output := time.NewTicker(2 * followEvery)
	defer output.Stop()
	if l == nil {
		output.Stop()
	}
	sent := map[string]summary{}
	for {
		news, any := f.since(s.revision, sent)
		if any {
			s.revision = news.Revision
			if s.send("run", news) != nil {
				return nil // the reader is gone
			}
		}
		told, err := l.tell(r.Context(), s, news.Ended)
		if err != nil {
			return err // of the log; a reader that is gone ends as r.Context tells
		}
		if news.Ended && told {
			_ = s.send("end", struct{}{}) // or the reader is gone
			return nil
		}
		select {
		case <-wake:
			if f.isOver() {
				return nil
			}
		case <-output.C:
		case <-look.C:
			f.recount(c.machine.Waits, c.now())
		case <-beat.C:
			if _, err := c.load(r, f.name); err != nil { // rights may have been taken away
				return err
			}
			if s.send("beat", struct{}{}) != nil {
				return nil
			}
		case <-r.Context().Done():
			return nil
		case <-c.closing:
			return nil
		}
	}
}

// isOver reports a feed that is kept no longer though its run is there.
func (f *feed) isOver() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.over && !f.gone
}
