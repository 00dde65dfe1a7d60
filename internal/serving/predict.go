package serving

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// streamLimit bounds a streamed answer.
const streamLimit = time.Hour

// Request is one prediction, as bytes.
type Request struct {
	Header http.Header // for the container; nil = JSON
	Body   []byte
	Stream bool // the answer may take long and comes in parts
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
// traffic split. Errors are ours, or those of a model in process; a container's
// own bad answer is a Response.
func (e *Engine) Predict(ctx context.Context, endpoint string, r Request) (*Response, error) {
	d, err := e.choose(ctx, endpoint)
	if err != nil {
		return nil, err
	}
	limit := e.cfg.Limit
	if r.Stream {
		limit = streamLimit
	}
	if r.Header == nil {
		r.Header = http.Header{"Content-Type": {"application/json"}}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	resp, err := d.set.Do(ctx, &replica.Request{Method: http.MethodPost, Path: d.route, Header: r.Header, Body: r.Body})
	if err != nil {
		cancel()
		return nil, err
	}
	return &Response{
		Endpoint:      endpoint[strings.LastIndexByte(endpoint, '/')+1:],
		DeployedModel: d.id, Model: d.model.GetName(), ModelVersion: d.model.GetVersionId(), ModelDisplay: d.model.GetDisplayName(),
		Route: d.route, Status: resp.Status, Header: resp.Header, Body: &bounded{resp.Body, cancel},
	}, nil
}

// bounded ends the request's time limit with its body.
type bounded struct {
	io.ReadCloser

	cancel context.CancelFunc
}

func (b *bounded) Close() error {
	err := b.ReadCloser.Close()
	b.cancel()
	return err
}

// choose picks a deployed model. What is cached of the endpoint may be a moment
// old, so that a miss is looked up before it is an error.
func (e *Engine) choose(ctx context.Context, name string) (*deployment, error) {
	e.mu.RLock()
	endpoint, epoch := e.endpoints[name], e.epoch
	e.mu.RUnlock()
	if endpoint != nil {
		if d := e.draw(endpoint); d != nil {
			return d, nil
		}
	}
	endpoint = &pb.Endpoint{}
	if _, err := store.GetMessage(ctx, e.cfg.Store, resource.KindEndpoints, name, endpoint); err != nil {
		return nil, fmt.Errorf("predict: %w", err)
	}
	e.mu.Lock()
	if e.epoch == epoch { // else what was read may be old already
		e.endpoints[name] = endpoint
	}
	e.mu.Unlock()
	if d := e.draw(endpoint); d != nil {
		return d, nil
	}
	return nil, unserved(endpoint)
}

func unserved(endpoint *pb.Endpoint) error {
	name := endpoint.GetName()
	switch {
	case len(endpoint.GetDeployedModels()) == 0:
		return resource.Errorf(codes.FailedPrecondition, "endpoint %s has no deployed model", name).WithResource(name).
			WithHint("deploy a model to it first")
	case len(endpoint.GetTrafficSplit()) == 0:
		return resource.Errorf(codes.FailedPrecondition, "endpoint %s has no traffic split", name).WithResource(name).
			WithHint("set traffic_split on the endpoint")
	}
	return resource.Errorf(codes.Unavailable, "the deployed model of endpoint %s is not running yet", name).WithResource(name).
		WithCause(resource.CauseModel).WithHint("`tategu status` says what it waits for")
}

// draw chooses by the traffic split among the models that run; nil when the one
// chosen does not.
func (e *Engine) draw(endpoint *pb.Endpoint) *deployment {
	split := endpoint.GetTrafficSplit()
	total := 0
	for _, share := range split {
		total += int(share)
	}
	if total <= 0 {
		return nil
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
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.running[resource.DeploymentKey(endpoint.GetName(), id)]
}
