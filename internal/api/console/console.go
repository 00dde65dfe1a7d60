// Package console serves pages for people: the runs of pipelines, one run live with
// its graph, failures and logs, and plainly whatever else there is. The links that the
// Python SDK prints (to the cloud's console) lead here. It owns no state and changes
// none; the web console proper comes later and will replace the pages, not the routes.
//
// Pages are templates filled in the server and work without scripts; a script of a
// few kilobytes makes them live. Nothing of them comes from another origin.
package console

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// Rows are the state that pages show, and how it changes.
type Rows interface {
	store.Reader
	Watch(kinds ...store.Kind) store.Watcher
}

// Authorizer says whether the caller may read a project's resources.
type Authorizer interface {
	Authorize(ctx context.Context, p identity.Principal, project, permission string) error
}

// Stream is one log of a resource, such as one attempt of a task.
type Stream struct {
	ID    string
	Label string
}

// Logs finds and reads the logs of a resource.
type Logs interface {
	Streams(ctx context.Context, name string) ([]Stream, error)
	// Read gives up to limit bytes from offset; fewer at the end.
	Read(ctx context.Context, stream string, offset int64, limit int) ([]byte, error)
	// Size is how many bytes a stream has by now.
	Size(ctx context.Context, stream string) (int64, error)
	// Workloads says how the programs of a resource are that are known to a runtime.
	Workloads(ctx context.Context, name string) ([]Workload, error)
}

// Workload is one program of a resource, as /tategu/v1/workloads tells it.
type Workload struct {
	ID      string    `json:"id"`
	Phase   string    `json:"phase"`             // QUEUED, PREPARING, RUNNING, ENDED
	Message string    `json:"message,omitempty"` // what is going on, for people
	Queue   *Queue    `json:"queue,omitempty"`   // while it is QUEUED
	Address string    `json:"address,omitempty"` // HOST:PORT that it was told to listen on
	Started time.Time `json:"startTime,omitzero"`
}

// Queue is a place in the line of what waits for room.
type Queue struct {
	Position int    `json:"position"` // from 1
	Length   int    `json:"length"`
	Waits    string `json:"waits,omitempty"` // for what
}

// Machine says how the machine is shared.
type Machine interface {
	// Place is where a workload waits for room; false when it does not.
	Place(workload string) (runtime.Queue, bool)
	// Waits reports that Place would give a place, and costs little.
	Waits(workload string) bool
	Load() Load
}

// Load is how much work the machine has.
type Load struct {
	Running int      `json:"running"`
	Waiting int      `json:"waiting"`
	InUse   string   `json:"inUse"` // "1.5 of 2 cores, ..."
	Queue   []Waiter `json:"-"`
}

// Waiter is a workload that waits for room.
type Waiter struct {
	Workload, Owner, Project, Asks string
	Queue                          runtime.Queue
}

// Console is an http.Handler for the pages and for the JSON that the
// command line reads (/tategu/v1/status, /tategu/v1/logs, /tategu/v1/run).
type Console struct {
	rows    Rows
	auth    Authorizer
	logs    Logs
	machine Machine
	log     *slog.Logger
	now     func() time.Time
	version string
	warn    func() []string
	started time.Time
	types   map[store.Kind]func() resourceView
	assets  assets
	feeds   *feeds
	mux     *http.ServeMux
	closing chan struct{} // closed when the server goes down
}

// New builds the handler. warn gives what keeps the server from its whole work, in
// words for people.
func New(rows Rows, auth Authorizer, logs Logs, machine Machine, version string, warn func() []string, log *slog.Logger, now func() time.Time) (*Console, error) {
	files, err := readAssets()
	if err != nil {
		return nil, err
	}
	c := &Console{rows: rows, auth: auth, logs: logs, machine: machine, log: log, now: now, version: version, warn: warn, started: now(), assets: files, types: views(), mux: http.NewServeMux(), closing: make(chan struct{})}
	c.feeds = &feeds{rows: rows, waits: machine.Waits, open: map[string]*held{}, log: func(ctx context.Context, err error) {
		log.ErrorContext(ctx, "console: following a run", slog.Any("error", err))
	}}
	c.mux.HandleFunc("GET /{$}", c.handle(c.index))
	c.mux.HandleFunc("GET /console/{name...}", c.handle(c.show))
	c.mux.HandleFunc("GET /console/runs", c.handle(c.listRuns))
	c.mux.HandleFunc("GET /console/assets/{version}/{file}", c.handle(c.asset))
	c.mux.HandleFunc("GET /tategu/v1/status", c.handle(c.status))
	c.mux.HandleFunc("GET /tategu/v1/logs", c.handle(c.readLogs))
	c.mux.HandleFunc("GET /tategu/v1/logs/window", c.handle(c.window))
	c.mux.HandleFunc("GET /tategu/v1/workloads", c.handle(c.workloads))
	c.mux.HandleFunc("GET /tategu/v1/run", c.handle(c.run))
	c.mux.HandleFunc("GET /tategu/v1/run/events", c.handle(c.events))
	c.mux.HandleFunc("GET /tategu/v1/run/changes", c.handle(c.changes))
	for _, prefix := range []string{"/vertex-ai/", "/agent-platform/", "/ai/platform/"} {
		c.mux.HandleFunc("GET "+prefix, c.handle(c.follow))
	}
	return c, nil
}

// Patterns are the path prefixes that belong to the console.
func Patterns() []string {
	return []string{"/console/", "/tategu/v1/status", "/tategu/v1/logs", "/tategu/v1/workloads", "/tategu/v1/run", "/vertex-ai/", "/agent-platform/", "/ai/platform/"}
}

// Run ends what follows logs and runs once ctx has ended: it would keep a server that
// goes down until its patience with requests is over. It is to be called once.
func (c *Console) Run(ctx context.Context) error {
	<-ctx.Done()
	close(c.closing)
	c.feeds.close()
	return nil
}

func goingDown() error {
	return resource.Errorf(codes.Unavailable, "the server goes down").WithHint("look again once it is back")
}

// wait is until a log is looked at again.
func (c *Console) wait(r *http.Request, d time.Duration) error {
	select {
	case <-r.Context().Done():
		return r.Context().Err()
	case <-c.closing:
		return resource.Errorf(codes.Unavailable, "the server goes down").WithHint("follow the log again once it is back")
	case <-time.After(d):
		return nil
	}
}

// ServeHTTP implements http.Handler.
func (c *Console) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

func (c *Console) handle(h func(w http.ResponseWriter, r *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Referrer-Policy", "same-origin")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		answer := &begun{ResponseWriter: w}
		err := h(answer, r)
		if err == nil {
			return
		}
		if r.Context().Err() != nil {
			if !answer.begun {
				w.WriteHeader(resource.StatusClientClosed)
			}
			return
		}
		if answer.begun { // an error in the text of a log would be taken for the program's
			c.log.WarnContext(r.Context(), "console: an answer broke off", slog.String("path", r.URL.Path), slog.Any("error", err))
			panic(http.ErrAbortHandler)
		}
		code := http.StatusInternalServerError
		switch st := status.Convert(err); st.Code().String() {
		case "NotFound":
			code = http.StatusNotFound
		case "PermissionDenied":
			code = http.StatusForbidden
		case "Unauthenticated":
			code = http.StatusUnauthorized
		case "InvalidArgument":
			code = http.StatusBadRequest
		case "Unavailable":
			code = http.StatusServiceUnavailable
		default:
			c.log.ErrorContext(r.Context(), "console", slog.String("path", r.URL.Path), slog.Any("error", err))
		}
		http.Error(w, err.Error(), code)
	}
}

// begun knows whether something of an answer was sent.
type begun struct {
	http.ResponseWriter
	begun bool
}

func (b *begun) Write(p []byte) (int, error) {
	b.begun = true
	return b.ResponseWriter.Write(p)
}

func (b *begun) WriteHeader(code int) {
	b.begun = true
	b.ResponseWriter.WriteHeader(code)
}

// FlushError implements what http.ResponseController asks for: it sends the header.
func (b *begun) FlushError() error {
	b.begun = true
	return http.NewResponseController(b.ResponseWriter).Flush()
}

func (c *Console) allow(r *http.Request, project, permission string) error {
	return c.auth.Authorize(r.Context(), identity.FromContext(r.Context()), project, permission)
}

// follow maps a path of the cloud's console to ours:
// /vertex-ai/locations/L/pipelines/runs/ID?project=P and its siblings.
func (c *Console) follow(w http.ResponseWriter, r *http.Request) error {
	name, ok := cloudPath(r.URL.Path, r.URL.Query().Get("project"))
	if !ok {
		return resource.NotFound(r.URL.Path).WithHint("open / for everything this server holds")
	}
	target := url.URL{Path: "/console/" + name} // a path of ours, whatever the query held
	http.Redirect(w, r, target.EscapedPath(), http.StatusFound)
	return nil
}

func cloudPath(path, project string) (string, bool) {
	_, rest, ok := strings.Cut(path, "/locations/")
	if !ok || project == "" {
		return "", false
	}
	seg := strings.Split(strings.Trim(rest, "/"), "/")
	parent := "projects/" + project + "/locations/" + seg[0] + "/"
	id := seg[len(seg)-1]
	switch {
	case len(seg) == 4 && seg[1] == "pipelines" && seg[2] == "runs":
		return parent + "pipelineJobs/" + id, true
	case len(seg) == 4 && seg[1] == "pipelines" && seg[2] == "schedules":
		return parent + "schedules/" + id, true
	case len(seg) == 3 && seg[1] == "training":
		return parent + "customJobs/" + id, true
	case len(seg) == 3 && seg[1] == "batch-predictions":
		return parent + "batchPredictionJobs/" + id, true
	case len(seg) == 3 && (seg[1] == "endpoints" || seg[1] == "models"):
		return parent + seg[1] + "/" + id, true
	case len(seg) == 5 && seg[1] == "metadata-stores":
		return parent + "metadataStores/" + seg[2] + "/" + seg[3] + "/" + id, true
	}
	return "", false
}

type statusReply struct {
	Version   string         `json:"version"`
	UptimeSec float64        `json:"uptimeSeconds"`
	Warnings  []string       `json:"warnings,omitempty"`
	Machine   Load           `json:"machine"`
	Resources []resourceView `json:"resources"`
}

// status answers what runs now and what ended last, for `tategu status`.
func (c *Console) status(w http.ResponseWriter, r *http.Request) error {
	list, err := c.recent(r, 20)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(statusReply{Version: c.version, UptimeSec: c.now().Sub(c.started).Seconds(), Warnings: c.warn(), Machine: c.machine.Load(), Resources: list})
}

func shortTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func took(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	}
	return d.Round(100 * time.Millisecond).String()
}
