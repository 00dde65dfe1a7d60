// Package torchserve is the engine of a TorchServe server: it registers model
// archives, keeps their worker processes (the stock Python workers of the torchserve
// package) running, gathers requests into batches, and runs workflows. It speaks no
// HTTP and no gRPC: its callers do. What is declared here answers "not yet" until its
// body lands: workers, batches, workflows and snapshots, in that order.
package torchserve

import (
	"context"
	"log/slog"
	"net/http"

	"tategu/internal/mar"
)

// Server keeps models and their workers. Its methods may be called concurrently,
// while Run runs.
type Server struct {
	cfg  Config
	deps Deps
}

// Deps are what a server works with.
type Deps struct {
	Log     *slog.Logger
	Metrics Metrics     // nil = what is measured is dropped
	Objects mar.Objects // gs:// and s3://; nil = such URLs are refused by name
	HTTP    *http.Client
}

// New makes a server; Run starts it.
func New(cfg Config, deps Deps) (*Server, error) {
	return &Server{cfg: cfg, deps: deps}, nil
}

var errSoon = &Error{Code: http.StatusNotImplemented, Type: InternalServer, Message: "not yet"}

// Run restores the snapshot or loads the models that the configuration names, then
// keeps all workers until ctx is done. It has stopped them all when it returns.
func (s *Server) Run(ctx context.Context) error { return errSoon }

// Started is closed once the models of the start are registered and their workers
// were tried.
func (s *Server) Started() <-chan struct{} { return nil }

// Register takes a model.
func (s *Server) Register(ctx context.Context, r Registration) (Registered, error) {
	return Registered{}, errSoon
}

// Unregister stops a model's workers and removes it. Version "" is the default one,
// which goes only when it is the last.
func (s *Server) Unregister(ctx context.Context, model, version string) error { return errSoon }

// Scale changes the number of workers. With Synchronous it returns once they run;
// a worker that cannot start is then its error.
func (s *Server) Scale(ctx context.Context, w Scaling) error { return errSoon }

// SetDefault makes a version the one of requests that name none.
func (s *Server) SetDefault(ctx context.Context, model, version string) error { return errSoon }

// Models lists the default version of each model, by name, without those of workflows.
func (s *Server) Models() []Model { return nil }

// Describe gives a version ("" = the default, "all" = every one). With customized the
// handler is asked to describe the model as well.
func (s *Server) Describe(ctx context.Context, model, version string, customized bool) ([]Model, error) {
	return nil, errSoon
}

// Predict runs one request and calls emit for each frame of its answer, from the
// caller's goroutine. Nothing was emitted when an error is an *Error of the engine's
// own; an error of emit ends the request and is returned.
func (s *Server) Predict(ctx context.Context, model, version string, r Request, emit func(Frame) error) error {
	return errSoon
}

// RegisterWorkflow takes a workflow and registers its models and functions.
func (s *Server) RegisterWorkflow(ctx context.Context, r WorkflowRegistration) (Workflow, error) {
	return Workflow{}, errSoon
}

// UnregisterWorkflow removes it with its models.
func (s *Server) UnregisterWorkflow(ctx context.Context, name string) error { return errSoon }

// Workflows lists all by name.
func (s *Server) Workflows() []Workflow { return nil }

// DescribeWorkflow gives one.
func (s *Server) DescribeWorkflow(name string) (Workflow, error) { return Workflow{}, errSoon }

// PredictWorkflow runs the graph of a workflow for one request.
func (s *Server) PredictWorkflow(ctx context.Context, name string, r Request, emit func(Frame) error) error {
	return errSoon
}

// Health says whether models have their workers.
func (s *Server) Health() Health { return Healthy }
