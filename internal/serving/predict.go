package serving

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// streamLimit bounds a streamed answer.
const streamLimit = time.Hour

// Request is one prediction, as bytes.
type Request struct {
	Header http.Header // for the container; nil = JSON
	// Body is the caller's own again once the answer is closed, or there is none: who
	// needs it longer copies it.
	Body []byte
	// Upload is in place of Body when that is still coming. Predict may return before it
	// has come.
	Upload *replica.Upload
	Stream bool // the answer may take long and comes in parts
	// Again allows that it is sent to another replica when one dies over it.
	Again bool
	// DeployedModel asks for one by its id; "" = by the traffic split.
	DeployedModel string
	// Route asks for a route of the server's own, with its query; "" = that of
	// predictions. Method is POST where it is not given.
	Route, Method string
	// Explain asks for explanations of predictions.
	Explain bool
	// Part is the request for explanations that this one is part of; nil = it is counted
	// and logged by itself.
	Part *Explaining
}

// Response is a container's answer and who gave it. Body must be closed.
type Response struct {
	Endpoint      string // id
	DeployedModel string
	Model         string
	ModelVersion  string
	ModelDisplay  string
	Route         string // that the container was asked at; "" in process
	Status        int
	Header        http.Header
	Body          io.ReadCloser
}

// Predict sends a request to one of the endpoint's deployed models, chosen by the
// traffic split. It is held while there is no replica yet. Errors are ours, or those
// of a model in process; a container's own bad answer is a Response.
func (e *Engine) Predict(ctx context.Context, endpoint string, r Request) (*Response, error) {
	e.asked.Store(time.Now().UnixNano())
	for try := 1; ; try++ {
		resp, err := e.predict(ctx, endpoint, r)
		// A model that was taken off meanwhile has a successor in the split.
		if err == nil || try == reroutes || !errors.Is(err, replica.ErrStopping) {
			return resp, err
		}
	}
}

// Asked is when a prediction came last.
func (e *Engine) Asked() time.Time { return time.Unix(0, e.asked.Load()) }

// reroutes is how often a request is sent to a model that is being undeployed.
const reroutes = 3

func (e *Engine) predict(ctx context.Context, endpoint string, r Request) (*Response, error) {
	at, d, err := e.choose(ctx, endpoint, r.DeployedModel)
	if err != nil {
		return nil, err
	}
	if at.canary != nil && r.Upload != nil { // a canary is judged by its time alone, not by its callers'
		if err := r.whole(); err != nil {
			return nil, err
		}
	}
	begin := time.Now()
	var resp *Response
	if at.canary != nil && r.DeployedModel == "" {
		resp, err = e.tried(ctx, at, d, r)
	} else {
		resp, err = e.ask(ctx, at, d, r)
	}
	if err != nil {
		return resp, err
	}
	if err := e.tapped(at, r, resp, time.Since(begin)); err != nil {
		return nil, err
	}
	return resp, nil
}

// whole waits for the body.
func (r *Request) whole() (err error) {
	if r.Upload != nil {
		r.Body, err = r.Upload.Whole()
	}
	if err == nil {
		r.Upload = nil
	}
	return err
}

// ask sends a request to a deployed model.
func (e *Engine) ask(ctx context.Context, at *entry, d *deployment, r Request) (*Response, error) {
	ask, err := d.request(r)
	if err != nil {
		return nil, err
	}
	if r.Upload != nil && !d.set.Free() {
		if ask, err = d.read(r); err != nil {
			return nil, err
		}
	}
	limit := inferenceTimeout(at.endpoint)
	if limit == 0 {
		limit = e.cfg.Limit
		if r.Stream {
			limit = streamLimit
		}
	}
	tell := d.predicted
	if r.Explain || r.Part != nil {
		tell = r.Part.explained
	}
	limited, cancel := context.WithTimeout(ctx, limit)
	resp, end, err := d.do(limited, ask, tell)
	if errors.Is(err, replica.ErrUnread) {
		cancel()
		if ask, err = d.read(r); err != nil {
			return nil, err
		}
		limited, cancel = context.WithTimeout(ctx, limit)
		resp, end, err = d.do(limited, ask, tell)
	}
	if err != nil {
		cancel()
		return nil, err
	}
	return &Response{
		Endpoint:      path.Base(at.endpoint.GetName()),
		DeployedModel: d.id, Model: d.model.GetName(), ModelVersion: d.model.GetVersionId(), ModelDisplay: d.model.GetDisplayName(),
		Route: ask.Path, Status: resp.Status, Header: resp.Header,
		Body: &bounded{ReadCloser: resp.Body, end: func() {
			cancel()
			end()
		}},
	}, nil
}

// read is request once all of the body has come, for which nobody waits meanwhile.
func (d *deployment) read(r Request) (*replica.Request, error) {
	if err := r.whole(); err != nil {
		return nil, err
	}
	return d.request(r)
}

// outcome is how a request to a replica ended.
type outcome struct {
	d    *deployment
	ask  *replica.Request
	resp *replica.Response // nil = err says why
	err  error
	took time.Duration
}

// do sends a request to a replica, which is busy as long as it lasts: end must be called
// once the answer has been read. tell counts and logs the outcome.
func (d *deployment) do(ctx context.Context, r *replica.Request, tell func(context.Context, outcome)) (resp *replica.Response, end func(), err error) {
	begin, cold := time.Now(), d.scale != nil && d.scale.begin()
	resp, err = d.set.Do(ctx, r)
	if err != nil {
		if d.scale != nil {
			d.scale.end(nil)
		}
		if errors.Is(err, replica.ErrUnread) {
			return nil, nil, err // it comes again
		}
		tell(ctx, outcome{d: d, ask: r, err: err, took: time.Since(begin)})
		return nil, nil, err
	}
	if cold {
		d.meters.started(resp.Waited)
	}
	return resp, func() {
		if d.scale != nil {
			d.scale.end(d.lesson(r, resp))
		}
		tell(ctx, outcome{d: d, ask: r, resp: resp, took: time.Since(begin)})
	}, nil
}

// predicted counts and logs a prediction.
func (d *deployment) predicted(ctx context.Context, o outcome) {
	if o.err != nil {
		d.meters.failed(o.err, o.took)
	} else {
		d.meters.answered(o.resp, o.took)
	}
	d.accessed(ctx, o)
}

// lesson is an answer that tells how many requests a replica takes at a time. The time
// of an explanation, or of a change of a server's models, says nothing of that: it would
// look as if predictions had become slow.
func (d *deployment) lesson(r *replica.Request, resp *replica.Response) *replica.Response {
	if r.Path == d.explain && d.explain != d.route || strings.HasPrefix(r.Path, modelformat.TorchManagement) {
		return nil
	}
	return resp
}

// accessed logs a request that was served or failed, for enable_access_logging of a
// deployed model. Nothing of bodies, headers and queries is in it.
func (d *deployment) accessed(ctx context.Context, o outcome) {
	if d.access == nil {
		return
	}
	route, _, _ := strings.Cut(strings.TrimPrefix(o.ask.Path, modelformat.TorchManagement), "?")
	attrs := []slog.Attr{slog.String("method", o.ask.Method), slog.String("route", route), slog.Float64("ms", float64(o.took.Microseconds())/1000)}
	if o.err != nil {
		attrs = append(attrs, slog.String("code", resource.CodeOf(o.err).String()), slog.Any("error", o.err))
	} else {
		attrs = append(attrs, slog.Int("status", o.resp.Status))
	}
	d.access.LogAttrs(ctx, slog.LevelInfo, "access", attrs...)
}

// request is what a replica gets.
func (d *deployment) request(r Request) (*replica.Request, error) {
	ask := &replica.Request{Method: http.MethodPost, Path: d.route, Header: r.Header, Body: r.Body, Upload: r.Upload, Again: r.Again}
	if r.Header == nil {
		ask.Header = d.json
	}
	if r.Method != "" {
		ask.Method = r.Method
	}
	if r.Explain {
		if d.explain == "" {
			return nil, d.unexplained()
		}
		ask.Path = d.explain
	}
	if r.Route != "" {
		if !d.invoke {
			return nil, resource.Errorf(codes.FailedPrecondition, "deployed model %s takes predictions only", d.id).WithResource(d.model.GetName()).
				WithHint(`upload the model with invoke_route_prefix "/*" in its container_spec`)
		}
		ask.Path = r.Route
	}
	return ask, nil
}

// unexplained says why a deployed model explains nothing, and what would.
func (d *deployment) unexplained() error {
	e := resource.Errorf(codes.FailedPrecondition, "deployed model %s gives no explanations of its predictions", d.id).WithResource(d.model.GetName()).WithCause(resource.CauseModel)
	if d.native != nil {
		return e.WithHint("models that are evaluated in the server have none; archives of TorchServe's have, and containers that name the route in %s", modelformat.ExplainVariable)
	}
	return e.WithHint("name the route of its server that gives them in %s, a variable of the model's container", modelformat.ExplainVariable)
}

// bounded ends the request's time limit with its body.
type bounded struct {
	io.ReadCloser

	once sync.Once
	end  func()
}

func (b *bounded) Close() error {
	err := b.ReadCloser.Close()
	b.once.Do(b.end)
	return err
}

// entry is what is kept of an endpoint between requests.
type entry struct {
	endpoint *pb.Endpoint
	keys     map[string]string // of the deployed models in its traffic split, by id
	// nil = there is none
	canary  *canary
	shadow  *shadowing
	journal *journaling
}

// rereads is how often an endpoint is read that changes while it is.
const rereads = 3

// read reads an endpoint, and keeps it for later requests, with its canary; kept is false
// when it changed meanwhile: then nobody judges what is asked.
func (e *Engine) read(ctx context.Context, name string) (at *entry, kept bool, err error) {
	e.mu.RLock()
	epoch := e.epoch
	e.mu.RUnlock()
	at = &entry{endpoint: &pb.Endpoint{}, keys: map[string]string{}}
	if _, err := store.GetMessage(ctx, e.cfg.Store, resource.KindEndpoints, name, at.endpoint); err != nil {
		return nil, false, fmt.Errorf("predict: %w", err)
	}
	for id := range at.endpoint.GetTrafficSplit() {
		at.keys[id] = resource.DeploymentKey(at.endpoint.GetName(), id)
	}
	e.follow(ctx, at)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.epoch != epoch {
		return at, false, nil
	}
	at.canary = e.canaryOf(at.endpoint)
	e.endpoints[name] = at
	return at, true, nil
}

// choose picks a deployed model of an endpoint. What is cached of the endpoint may be a
// moment old, so that a miss is looked up before it is an error.
func (e *Engine) choose(ctx context.Context, name, id string) (*entry, *deployment, error) {
	e.mu.RLock()
	at := e.endpoints[name]
	e.mu.RUnlock()
	if at != nil {
		if d := e.draw(at, id); d != nil {
			return at, d, nil
		}
	}
	for kept, try := false, 0; !kept && try < rereads; try++ {
		var err error
		if at, kept, err = e.read(ctx, name); err != nil {
			return nil, nil, err
		}
	}
	if d := e.draw(at, id); d != nil {
		return at, d, nil
	}
	return nil, nil, unserved(at.endpoint, id)
}

// follow reads what an endpoint says about copies. The API has refused what cannot be
// followed.
func (e *Engine) follow(ctx context.Context, at *entry) {
	var bad, worse error
	at.shadow, bad = shadowOf(at.endpoint)
	if e.cfg.Journal != nil {
		at.journal, worse = journalOf(at.endpoint)
	}
	if err := errors.Join(bad, worse); err != nil {
		e.cfg.Log.ErrorContext(ctx, "copies of requests are not made", slog.String("endpoint", at.endpoint.GetName()), slog.Any("error", err))
	}
}

func inferenceTimeout(endpoint *pb.Endpoint) time.Duration {
	return max(0, endpoint.GetClientConnectionConfig().GetInferenceTimeout().AsDuration())
}

func unserved(endpoint *pb.Endpoint, id string) error {
	name := endpoint.GetName()
	deployed := slices.ContainsFunc(endpoint.GetDeployedModels(), func(d *pb.DeployedModel) bool { return d.GetId() == id })
	switch {
	case id != "" && !deployed:
		return resource.NotFound(resource.DeploymentKey(name, id))
	case len(endpoint.GetDeployedModels()) == 0:
		return resource.Errorf(codes.FailedPrecondition, "endpoint %s has no deployed model", name).WithResource(name).
			WithHint("deploy a model to it first")
	case id == "" && len(endpoint.GetTrafficSplit()) == 0:
		return resource.Errorf(codes.FailedPrecondition, "endpoint %s has no traffic split", name).WithResource(name).
			WithHint("set traffic_split on the endpoint")
	}
	return resource.Errorf(codes.Unavailable, "the deployed model of endpoint %s is not running yet", name).WithResource(name).
		WithCause(resource.CauseModel).WithHint("`tategu status` says what it waits for")
}

// draw chooses by the traffic split among the models that run; nil when the one
// chosen does not. id names one.
func (e *Engine) draw(at *entry, id string) *deployment {
	if id == "" {
		split := at.endpoint.GetTrafficSplit()
		if at.canary != nil && at.canary.out.Load() {
			split = at.canary.with(split, 0)
		}
		id = e.drawID(split)
	}
	return e.find(at.key(id))
}

// key is that of a deployed model's row.
func (at *entry) key(id string) string {
	if key := at.keys[id]; key != "" {
		return key
	}
	return resource.DeploymentKey(at.endpoint.GetName(), id)
}

// find gives a deployed model that runs.
func (e *Engine) find(key string) *deployment {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.running[key]
}

// drawID chooses one by its share; "" = nobody has one.
func (e *Engine) drawID(split map[string]int32) string {
	total := 0
	for _, share := range split {
		total += int(share)
	}
	if total <= 0 {
		return ""
	}
	id := ""
	if len(split) == 1 {
		for id = range split {
		}
	} else {
		at := e.cfg.Random(total)
		for _, id = range slices.Sorted(maps.Keys(split)) {
			if at -= int(split[id]); at < 0 {
				break
			}
		}
	}
	return id
}
