package launch

import (
	"context"
	"encoding/json"
	"net/http"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

// operation is a long-running operation.
type operation struct {
	Name     string          `json:"name"`
	Done     bool            `json:"done"`
	Error    *apiStatus      `json:"error"`
	Response json.RawMessage `json:"response"`
}

// change is a call that starts an operation.
type change struct {
	what string                              // "upload of the model", for errors
	name func(id string) string              // of the operation, which has the chosen id
	send func(id string) (*operation, error) // starts it
}

// operate starts an operation, or finds the one that this task had started, and
// waits for its end. response gets its response.
func (l *launcher) operate(ctx context.Context, c change, response any) error {
	op, err := l.operation(ctx, c)
	if err != nil {
		return err
	}
	if l.args.GCPResources != "" {
		if err := l.made(gcpc.TypeLro, op.Name); err != nil {
			return err
		}
	}
	if op, err = l.await(ctx, op); err != nil {
		return err
	}
	if op.Error != nil {
		return failed(c.what+" failed", *op.Error)
	}
	l.say("%s: done", c.what)
	if response == nil || len(op.Response) == 0 {
		return nil
	}
	return json.Unmarshal(op.Response, response)
}

// operation gives the operation of this task. One that has failed is the end of the
// attempt that started it.
func (l *launcher) operation(ctx context.Context, c change) (*operation, error) {
	for round := 1; ; round++ {
		if ctx.Err() != nil {
			return nil, resource.Errorf(codes.Canceled, "the task was cancelled; nothing was changed")
		}
		id := l.id(round)
		op, err := c.send(id)
		if err != nil {
			// Whatever the server says now may come of what was changed before.
			known := &operation{}
			if l.API.call(context.WithoutCancel(ctx), http.MethodGet, "/v1/"+c.name(id), "", nil, known) != nil {
				return nil, err
			}
			l.say("%s: found %s, which this task started before", c.what, known.Name)
			op = known
		}
		if round >= l.Attempt || !op.Done || op.Error == nil {
			return op, nil
		}
		l.say("%s: %s of an earlier attempt failed", c.what, op.Name)
	}
}

// await waits for the end of an operation; the server holds the question until then.
func (l *launcher) await(ctx context.Context, op *operation) (*operation, error) {
	for !op.Done {
		now := &operation{}
		if err := l.API.call(ctx, http.MethodPost, "/v1/"+op.Name+":wait?timeout=30s", "", map[string]any{}, now); err != nil {
			if ctx.Err() != nil {
				return nil, l.stop(ctx, op.Name)
			}
			return nil, err
		}
		op = now
	}
	return op, nil
}

// start sends the request of a change. It is not broken off: what it starts has to
// be known, to be stopped.
func (l *launcher) start(ctx context.Context, method, path, id string, body any) (*operation, error) {
	op := &operation{}
	return op, l.API.call(context.WithoutCancel(ctx), method, "/v1/"+path, id, body, op)
}
