package score

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"

	"golang.org/x/sync/errgroup"

	"tategu/internal/resource"
)

// Remote scores sections with a model that answers requests.
type Remote struct {
	// Ask evaluates some instances in one request and gives a prediction for each.
	Ask func(ctx context.Context, instances [][]byte) ([]json.RawMessage, error)
	// Fatal reports an error that is not about the instances asked.
	Fatal func(ctx context.Context, err error) bool
	// Load reads a file that a file-list names.
	Load func(ctx context.Context, uri string) ([]byte, error)

	Rows   int           // of a request
	Bytes  int           // of its instances, at most, unless one alone is larger
	Places chan struct{} // a request takes one: so many are under way at the same time, of all sections
}

// batch is some consecutive rows; done is closed when they have answers.
type batch struct {
	rows    []Row
	answers []json.RawMessage // nil where the row's Err says why
	done    chan struct{}
}

// Section scores one section. Requests overlap; rows are written in their order.
func (r *Remote) Section(ctx context.Context, spec Spec, section []byte, results, failures io.Writer) (stats Stats, err error) {
	out, err := NewOutput(spec, 0, results, failures)
	if err != nil {
		return Stats{}, err
	}
	group, ctx := errgroup.WithContext(ctx)
	order := make(chan *batch, cap(r.Places))
	group.Go(func() error {
		defer close(order)
		return r.read(ctx, group, newRows(spec, section), order)
	})
	group.Go(func() error {
		for b := range order {
			select {
			case <-b.done:
			case <-ctx.Done():
				return ctx.Err()
			}
			if ctx.Err() != nil { // a batch that ended the job has no answers
				return ctx.Err()
			}
			if err := b.write(out); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	if err := group.Wait(); err != nil {
		return Stats{}, err
	}
	return out.Close()
}

// read cuts batches, has each asked and queues them for the writer.
func (r *Remote) read(ctx context.Context, group *errgroup.Group, in *rows, order chan<- *batch) error {
	in.cutKey = true
	for more := true; more; {
		b := &batch{done: make(chan struct{})}
		more = r.fill(ctx, in, b)
		if len(b.rows) == 0 {
			return nil
		}
		b.answers = make([]json.RawMessage, len(b.rows))
		select {
		case r.Places <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		group.Go(func() error {
			defer func() { <-r.Places }()
			defer close(b.done)
			return r.predict(ctx, b)
		})
		select {
		case order <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func (r *Remote) fill(ctx context.Context, in *rows, b *batch) (more bool) {
	size := 0
	for len(b.rows) < r.Rows && size < r.Bytes {
		b.rows = append(b.rows, Row{})
		row := &b.rows[len(b.rows)-1]
		if !in.next(row) {
			b.rows = b.rows[:len(b.rows)-1]
			return false
		}
		switch {
		case row.Err != nil:
		case in.spec.Input == FileList:
			r.load(ctx, row)
		case in.spec.Input == JSONL && !json.Valid(row.Instance):
			row.bad()
		}
		size += len(row.Instance)
	}
	return true
}

// load makes the instance of a file: its bytes, as Vertex AI sends them.
func (r *Remote) load(ctx context.Context, row *Row) {
	data, err := r.Load(ctx, string(row.record))
	if err != nil {
		row.Err = err
		return
	}
	row.Instance = append(make([]byte, 0, base64.StdEncoding.EncodedLen(len(data))+16), `{"b64":"`...)
	row.Instance = base64.StdEncoding.AppendEncode(row.Instance, data)
	row.Instance = append(row.Instance, `"}`...)
}

// predict answers one batch. An error ends the job; a bad instance does not.
func (r *Remote) predict(ctx context.Context, b *batch) error {
	good := make([]int, 0, len(b.rows))
	for i := range b.rows {
		if b.rows[i].Err == nil {
			good = append(good, i)
		}
	}
	return r.halve(ctx, b, good)
}

// halve asks for some rows of a batch; where that fails, for each half of them, down
// to the row that is to blame.
func (r *Remote) halve(ctx context.Context, b *batch, some []int) error {
	if len(some) == 0 {
		return nil
	}
	err := r.ask(ctx, b, some)
	if err == nil {
		return nil
	}
	if r.Fatal(ctx, err) {
		return err
	}
	if len(some) == 1 {
		b.rows[some[0]].Err = err
		return nil
	}
	half := len(some) / 2
	if err := r.halve(ctx, b, some[:half]); err != nil {
		return err
	}
	return r.halve(ctx, b, some[half:])
}

func (r *Remote) ask(ctx context.Context, b *batch, some []int) error {
	instances := make([][]byte, len(some))
	for n, i := range some {
		instances[n] = b.rows[i].Instance
	}
	answers, err := r.Ask(ctx, instances)
	if err != nil {
		return err
	}
	if len(answers) != len(some) {
		return resource.Errorf(9, "the model answered %d predictions for %d instances", len(answers), len(some)).WithCause(resource.CauseUserCode)
	}
	for n, i := range some {
		b.answers[i] = oneLine(answers[n])
	}
	return nil
}

func (b *batch) write(out *Output) error {
	for i := range b.rows {
		row := &b.rows[i]
		var err error
		if row.Err != nil {
			err = out.Bad(row, row.Err)
		} else {
			err = out.Good(row, Prediction{JSON: b.answers[i]})
		}
		if err != nil {
			return err
		}
	}
	b.rows, b.answers = nil, nil
	return nil
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
