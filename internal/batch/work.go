package batch

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/replica"
	"tategu/internal/resource"
)

// work is some consecutive instances; done is closed when they have answers.
type work struct {
	items   []*item
	answers []json.RawMessage // nil where item.err says why
	done    chan struct{}
}

// read cuts the input into works, hands each to a worker and queues them in
// order for the writer.
func (r *run) read(ctx context.Context, inputs []object, order chan<- *work, group *errgroup.Group, workers chan struct{}) error {
	limit := int(r.job.GetManualBatchTuningParameters().GetBatchSize())
	if limit <= 0 {
		limit = defaultBatch
	}
	var items []*item
	size := 0
	flush := func() error {
		if len(items) == 0 {
			return nil
		}
		w := &work{items: items, answers: make([]json.RawMessage, len(items)), done: make(chan struct{})}
		items, size = nil, 0
		select {
		case workers <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		group.Go(func() error {
			defer func() { <-workers }()
			defer close(w.done)
			return r.predict(ctx, w)
		})
		select {
		case order <- w:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, o := range inputs {
		err := r.engine.lines(ctx, o, func(line []byte) error {
			if len(items) > 0 && size+len(line) > batchBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			items, size = append(items, r.shape.item(line)), size+len(line)
			if len(items) == limit {
				return flush()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return flush()
}

// predict answers one work. An error ends the job; a bad instance does not.
func (r *run) predict(ctx context.Context, w *work) error {
	var good []int
	for i, it := range w.items {
		if it.err == nil {
			good = append(good, i)
		}
	}
	if len(good) == 0 {
		return nil
	}
	err := r.ask(ctx, w, good)
	if err == nil {
		return nil
	}
	if fatal(ctx, err) {
		return err
	}
	// One bad instance spoils the request: find it by asking one at a time.
	for _, i := range good {
		if len(good) > 1 {
			err = r.ask(ctx, w, []int{i})
		}
		if err != nil {
			if fatal(ctx, err) {
				return err
			}
			w.items[i].err = err
		}
	}
	return nil
}

// fatal reports an error that is not about the instances asked.
func fatal(ctx context.Context, err error) bool {
	return ctx.Err() != nil || resource.CodeOf(err) == codes.Unavailable
}

// ask sends the instances with the given indexes in one request.
func (r *run) ask(ctx context.Context, w *work, indexes []int) error {
	var b bytes.Buffer
	b.WriteString(`{"instances":[`)
	for n, i := range indexes {
		if n > 0 {
			b.WriteByte(',')
		}
		b.Write(w.items[i].instance)
	}
	b.WriteByte(']')
	if r.parameters != nil {
		b.WriteString(`,"parameters":`)
		b.Write(r.parameters)
	}
	b.WriteByte('}')
	data, err := r.post(ctx, b.Bytes())
	if err != nil {
		return err
	}
	var answer struct {
		Predictions []json.RawMessage `json:"predictions"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return userError("the model's answer is not of the form {\"predictions\": [...]}: %w", err)
	}
	if len(answer.Predictions) != len(indexes) {
		return userError("the model answered %d predictions for %d instances", len(answer.Predictions), len(indexes))
	}
	for n, i := range indexes {
		w.answers[i] = oneLine(answer.Predictions[n])
	}
	return nil
}

func userError(format string, args ...any) error {
	return resource.Errorf(codes.FailedPrecondition, format, args...).WithCause(resource.CauseUserCode)
}

// A request is repeated when a replica ended under it or is overloaded.
const (
	attempts   = 5
	retryFirst = 100 * time.Millisecond
)

// pause reports whether the time passed before ctx ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (r *run) post(ctx context.Context, body []byte) ([]byte, error) {
	var last error
	for n := range attempts {
		if n > 0 && !pause(ctx, retryFirst<<n) {
			return nil, ctx.Err()
		}
		resp, err := r.set.Do(ctx, &replica.Request{Method: http.MethodPost, Path: r.route, Header: http.Header{"Content-Type": {"application/json"}}, Body: body})
		if err != nil {
			if last = err; resource.CodeOf(err) == codes.Unavailable && ctx.Err() == nil {
				continue // the set holds the request until a replica is back
			}
			return nil, err
		}
		data, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			last = resource.Errorf(codes.Unavailable, "the answer broke off: %w", err).WithCause(resource.CauseUserCode)
			continue
		}
		if resp.Status == http.StatusServiceUnavailable || resp.Status == http.StatusTooManyRequests {
			last = resource.Errorf(codes.Unavailable, "the model's server answered %d: %s", resp.Status, excerpt(data)).WithCause(resource.CauseUserCode)
			continue
		}
		if resp.Status >= http.StatusMultipleChoices {
			return nil, userError("the model's server answered %d: %s", resp.Status, excerpt(data))
		}
		return data, nil
	}
	return nil, last
}

func excerpt(data []byte) string {
	const most = 1000
	return strings.TrimSpace(strings.ToValidUTF8(string(data[:min(len(data), most)]), "?"))
}

// oneLine takes line breaks out of a JSON value.
func oneLine(v json.RawMessage) json.RawMessage {
	if !bytes.ContainsAny(v, "\n\r") {
		return v
	}
	var b bytes.Buffer
	if err := json.Compact(&b, v); err != nil { // it has been read as JSON before
		return v
	}
	return b.Bytes()
}

// output writes results and failures in the order of the input.
type output struct {
	results, failures io.Writer
	stats             *pb.CompletionStats
	partial           []error
	buf               []byte
}

func (o *output) write(ctx context.Context, order <-chan *work) error {
	for w := range order {
		select {
		case <-w.done:
		case <-ctx.Done():
			return ctx.Err()
		}
		if ctx.Err() != nil { // a work that ended the job has no answers
			return ctx.Err()
		}
		if err := o.lines(w); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (o *output) lines(w *work) error {
	good, bad := o.buf[:0], []byte(nil)
	for i, it := range w.items {
		if it.err == nil && w.answers[i] != nil {
			good = append(append(append(good, '{'), it.shown...), `,"prediction":`...)
			good = append(append(good, w.answers[i]...), "}\n"...)
			o.stats.SuccessfulCount++
			continue
		}
		o.stats.FailedCount++
		if len(o.partial) < partialsShown {
			o.partial = append(o.partial, fmt.Errorf("instance %d: %w", o.stats.GetSuccessfulCount()+o.stats.GetFailedCount()-1, it.err))
		}
		line, err := failure(it)
		if err != nil {
			return err
		}
		bad = append(bad, line...)
	}
	o.buf = good
	if _, err := o.results.Write(good); err != nil {
		return err
	}
	_, err := o.failures.Write(bad)
	return err
}

// failure is a line of the errors file.
func failure(it *item) ([]byte, error) {
	code := resource.CodeOf(it.err)
	if code == codes.Unknown {
		code = codes.InvalidArgument
	}
	told, err := json.Marshal(map[string]any{"code": code, "message": it.err.Error()})
	if err != nil {
		return nil, err
	}
	line := append([]byte{'{'}, it.shown...)
	line = append(append(line, `,"error":`...), told...)
	return append(line, "}\n"...), nil
}
