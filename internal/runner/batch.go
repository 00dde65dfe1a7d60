package runner

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"time"

	"tategu/internal/tensor"
)

// job is what one request wants of one run.
type job struct {
	ctx    context.Context //nolint:containedctx // a job lives as long as its request
	inputs []tensor.Tensor
	rows   int
	key    string // of what it may be merged with
	begun  time.Time
	done   chan outcome // one value
}

type outcome struct {
	values []Value
	err    error
}

// batcher hands jobs to workers. A worker that is free takes the oldest job at once,
// and with it all that wait and fit: nothing waits to make a batch larger, unless that
// was asked for.
type batcher struct {
	model *Model
	most  int           // rows of a batch
	delay time.Duration // that a batch may wait for more
	stats *stats

	mu     sync.Mutex
	ready  *sync.Cond
	queue  []*job
	closed bool
	more   chan struct{} // tells a batch that waits of a new job
}

func newBatcher(m *Model, most int, delay time.Duration, s *stats) *batcher {
	b := &batcher{model: m, most: most, delay: delay, stats: s, more: make(chan struct{}, 1)}
	b.ready = sync.NewCond(&b.mu)
	return b
}

// run works until ctx ends, with so many runs of the model at a time.
func (b *batcher) run(ctx context.Context, workers int) {
	stop := context.AfterFunc(ctx, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.closed = true
		b.ready.Broadcast()
	})
	defer stop()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for batch := b.next(); batch != nil; batch = b.next() {
				batch = b.fill(ctx, batch)
				b.stats.batch(batch)
				b.model.answer(batch)
			}
		})
	}
	wg.Wait()
}

// do waits for a run that answers the job. The inputs may be used again when it has
// returned without an error of ctx.
func (b *batcher) do(ctx context.Context, inputs []tensor.Tensor, rows int) ([]Value, error) {
	j := &job{ctx: ctx, inputs: inputs, rows: rows, begun: time.Now(), done: make(chan outcome, 1)}
	if b.model.mode == Merged {
		j.key = shapes(inputs)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, errClosed
	}
	b.queue = append(b.queue, j)
	b.mu.Unlock()
	b.ready.Signal()
	if b.delay > 0 {
		select {
		case b.more <- struct{}{}:
		default: // it was told already
		}
	}
	select {
	case out := <-j.done:
		return out.values, out.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// shapes is equal for inputs that differ in their rows alone.
func shapes(inputs []tensor.Tensor) string {
	key := make([]byte, 0, 64)
	for _, t := range inputs {
		key = append(key, '/')
		for _, d := range t.Shape[1:] {
			key = append(key, byte(d), byte(d>>8), byte(d>>16), byte(d>>24), byte(d>>32))
		}
	}
	return string(key)
}

// next waits for a batch; nil is the end.
func (b *batcher) next() []*job {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		for len(b.queue) == 0 {
			if b.closed {
				return nil
			}
			b.ready.Wait()
			// Who is about to ask does so first: they share the run.
			b.mu.Unlock()
			runtime.Gosched()
			b.mu.Lock()
		}
		if batch := b.take(nil); len(batch) > 0 {
			return batch
		}
	}
}

// take adds jobs from the queue that fit. Those whose clients are gone are dropped.
// The caller holds the lock.
func (b *batcher) take(batch []*job) []*job {
	rows := 0
	for _, j := range batch {
		rows += j.rows
	}
	kept := b.queue[:0]
	for _, j := range b.queue {
		switch {
		case j.ctx.Err() != nil:
			j.done <- outcome{err: j.ctx.Err()}
		case len(batch) == 0, b.model.mode == Merged && j.key == batch[0].key && rows+j.rows <= b.most:
			batch = append(batch, j)
			rows += j.rows
		default:
			kept = append(kept, j)
		}
	}
	clear(b.queue[len(kept):])
	b.queue = kept
	return batch
}

// fill waits for more where that was asked for.
func (b *batcher) fill(ctx context.Context, batch []*job) []*job {
	if b.delay == 0 || b.model.mode != Merged {
		return batch
	}
	timer := time.NewTimer(b.delay - time.Since(batch[0].begun))
	defer timer.Stop()
	for {
		rows := 0
		for _, j := range batch {
			rows += j.rows
		}
		if rows >= b.most {
			return batch
		}
		select {
		case <-ctx.Done():
			return batch
		case <-timer.C:
			return batch
		case <-b.more:
		}
		b.mu.Lock()
		batch = b.take(batch)
		b.mu.Unlock()
	}
}

// answer runs a batch and gives each job its part. When a batch fails each of its jobs
// is run alone, so that a bad one is the only one to fail.
func (m *Model) answer(batch []*job) {
	if len(batch) == 1 {
		j := batch[0]
		values, err := m.evaluate(j.inputs, j.rows)
		j.done <- outcome{values, err}
		return
	}
	inputs, rows := make([]tensor.Tensor, len(m.inputs)), 0
	for i := range inputs {
		parts := make([]tensor.Tensor, len(batch))
		for k, j := range batch {
			parts[k] = j.inputs[i]
		}
		inputs[i] = tensor.Concat(parts)
	}
	for _, j := range batch {
		rows += j.rows
	}
	values, err := m.evaluate(inputs, rows)
	if err != nil {
		for _, j := range batch {
			m.answer([]*job{j})
		}
		return
	}
	at := 0
	for _, j := range batch {
		part := make([]Value, len(values))
		for i, v := range values {
			part[i] = v.rows(at, at+j.rows)
		}
		at += j.rows
		j.done <- outcome{values: part}
	}
}

// rows is a part of the value.
func (v Value) rows(from, to int) Value {
	if v.Maps != nil {
		return Value{Maps: v.Maps[from:to]}
	}
	return Value{Tensor: v.Rows(from, to)}
}

// evaluate runs the model on rows, or on one whole instance, and sees that there is a
// row of each output for each of the inputs'.
func (m *Model) evaluate(inputs []tensor.Tensor, rows int) ([]Value, error) {
	if m.mode == Whole {
		return m.engine.Run(inputs)
	}
	if !m.single {
		values, err := m.engine.Run(inputs)
		if err != nil {
			return nil, err
		}
		return values, m.rowsOf(values, rows)
	}
	parts := make([][]tensor.Tensor, len(m.outputs))
	maps := make([][]Map, len(m.outputs))
	row := make([]tensor.Tensor, len(inputs))
	for r := range rows {
		for i, t := range inputs {
			row[i] = t.Rows(r, r+1)
			row[i].Data = tensor.Aligned(t.Type, row[i].Data)
		}
		values, err := m.engine.Run(row)
		if err == nil {
			err = m.rowsOf(values, 1)
		}
		if err != nil {
			return nil, err
		}
		for i, v := range values {
			parts[i], maps[i] = append(parts[i], v.Tensor), append(maps[i], v.Maps...)
		}
	}
	out := make([]Value, len(m.outputs))
	for i, spec := range m.outputs {
		if spec.Maps {
			out[i].Maps = maps[i]
			continue
		}
		for _, p := range parts[i] {
			if a, b := tensor.Shape(parts[i][0].Shape).String(), tensor.Shape(p.Shape).String(); a != b {
				return nil, &InputError{fmt.Errorf("output %q has shape %s for one row and %s for another: send them in requests of their own", spec.Name, a, b)}
			}
		}
		out[i].Tensor = tensor.Concat(parts[i])
	}
	return out, nil
}

// rowsOf checks that each value has so many rows.
func (m *Model) rowsOf(values []Value, rows int) error {
	for i, v := range values {
		n := len(v.Maps)
		if v.Maps == nil {
			n = -1
			if len(v.Shape) > 0 {
				n = int(v.Shape[0])
			}
		}
		if n != rows {
			return fmt.Errorf("output %q has %d rows for %d of the inputs", m.outputs[i].Name, n, rows)
		}
	}
	return nil
}
