// Package torchserve speaks TorchServe's own APIs: Inference, Management, Metrics and
// workflows over HTTP, and its gRPC services. Routes, fields, statuses and words of
// errors are those of TorchServe 0.12, as its documentation has them and as it was seen
// to answer; docs/guide/torchserve.md names where they differ on purpose.
package torchserve

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"time"

	engine "tategu/internal/torchserve"
)

// Version of TorchServe whose APIs these are.
const Version = "0.12.0"

// Engine keeps the models; *engine.Server is one.
type Engine interface {
	Register(ctx context.Context, r engine.Registration) (engine.Registered, error)
	Unregister(ctx context.Context, model, version string) error
	Scale(ctx context.Context, w engine.Scaling) error
	SetDefault(ctx context.Context, model, version string) error
	Models() []engine.Model
	Describe(ctx context.Context, model, version string, customized bool) ([]engine.Model, error)
	Predict(ctx context.Context, model, version string, r engine.Request, emit func(engine.Frame) error) error
	RegisterWorkflow(ctx context.Context, r engine.WorkflowRegistration) (engine.Workflow, error)
	UnregisterWorkflow(ctx context.Context, name string) error
	Workflows() []engine.Workflow
	DescribeWorkflow(name string) (engine.Workflow, error)
	PredictWorkflow(ctx context.Context, name string, r engine.Request, emit func(engine.Frame) error) error
	Health() engine.Health
}

// Deps are what an API works with.
type Deps struct {
	Engine  Engine
	Metrics *Metrics
	Tokens  *Tokens // nil = requests need no token
	Log     *slog.Logger
	Access  io.Writer // a line for each request; nil = none
	// Store is the folder of archives that are named without a scheme, "" = none.
	Store string
}

// API answers requests. Its handlers may be used concurrently.
type API struct {
	Deps
	cfg engine.Listen
}

// New makes an API for a configuration.
func New(cfg engine.Listen, deps Deps) *API {
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	return &API{Deps: deps, cfg: cfg}
}

// handler answers one request, or gives false where its path is none of its own. An
// error is sent only where nothing was written.
type handler func(w http.ResponseWriter, r *http.Request, segments []string) (bool, error)

// Inference is the handler of the inference address.
func (a *API) Inference() http.Handler {
	return a.chain(a.describeAPI(true, false), a.guard(false), a.inference, a.openInference, a.workflowInference)
}

// Management is the handler of the management address.
func (a *API) Management() http.Handler {
	return a.chain(a.describeAPI(false, true), a.token, a.guard(true), a.management, a.workflows)
}

// MetricsAPI is the handler of the metrics address.
func (a *API) MetricsAPI() http.Handler {
	return a.chain(a.describeAPI(false, false), a.metricsAPI)
}

// All is one handler of several APIs, for addresses that are the same.
func (a *API) All(inference, management, metrics bool) http.Handler {
	hs := []handler{a.describeAPI(inference, management)}
	if metrics {
		hs = append(hs, a.metricsAPI)
	}
	if management {
		hs = append(hs, a.token)
	}
	own := func(h handler, isManagement bool) handler {
		return func(w http.ResponseWriter, r *http.Request, segments []string) (bool, error) {
			if managed(segments) != isManagement {
				return false, nil
			}
			if _, err := a.guard(isManagement)(w, r, segments); err != nil {
				return true, err
			}
			return h(w, r, segments)
		}
	}
	if management {
		hs = append(hs, own(a.management, true), own(a.workflows, true))
	}
	if inference {
		hs = append(hs, own(a.inference, false), own(a.openInference, false), own(a.workflowInference, false))
	}
	return a.chain(hs...)
}

// managed says which API a path belongs to where both have one address.
func managed(segments []string) bool {
	if len(segments) < 2 {
		return false
	}
	return segments[1] == "workflows" || segments[1] == "models" && (len(segments) != 4 || segments[3] != "invoke") ||
		segments[1] == "v1" && len(segments) == 4 && !strings.Contains(segments[3], ":")
}

// chain tries handlers in turn.
func (a *API) chain(handlers ...handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := requestID()
		rec := &recorder{ResponseWriter: w, id: id, cfg: &a.cfg}
		start := time.Now()
		defer func() {
			a.Metrics.request(rec.status)
			a.access(r, rec.status, time.Since(start))
		}()
		r = r.WithContext(context.WithValue(r.Context(), idKey{}, id))
		segments := split(r.URL.Path)
		for _, h := range handlers {
			done, err := h(rec, r, segments)
			if err != nil {
				a.fail(rec, r, err)
				return
			}
			if done {
				return
			}
		}
		a.fail(rec, r, notFound())
	})
}

// split is a path as segments, as TorchServe counts them: the first is what is before
// the leading slash, trailing empty ones are none.
func split(path string) []string {
	s := strings.Split(path, "/")
	for len(s) > 0 && s[len(s)-1] == "" {
		s = s[:len(s)-1]
	}
	return s
}

// at is a segment, "" where there is none.
func at(segments []string, i int) string {
	if i < len(segments) {
		return segments[i]
	}
	return ""
}
