package runner

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"tategu/internal/tensor"
)

// all runs the parts of a request side by side, large ones in pieces.
func (b *batcher) all(ctx context.Context, parts []part) ([][]Value, error) {
	answers := make([][]Value, len(parts))
	return answers, sideBySide(len(parts), func(i int) (err error) {
		answers[i], err = b.pieces(ctx, parts[i].inputs, parts[i].rows)
		return err
	})
}

// pieces cuts rows that leave each other alone into batches.
func (b *batcher) pieces(ctx context.Context, inputs []tensor.Tensor, rows int) ([]Value, error) {
	if b.model.mode != Merged || rows <= b.most {
		return b.do(ctx, inputs, rows)
	}
	n := (rows + b.most - 1) / b.most
	answers := make([][]Value, n)
	err := sideBySide(n, func(k int) (err error) {
		from, to := k*b.most, min((k+1)*b.most, rows)
		piece := make([]tensor.Tensor, len(inputs))
		for i, t := range inputs {
			piece[i] = t.Rows(from, to)
			piece[i].Data = tensor.Aligned(t.Type, piece[i].Data)
		}
		answers[k], err = b.do(ctx, piece, to-from)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b.model.join(answers)
}

// join puts the answers to pieces after each other.
func (m *Model) join(answers [][]Value) ([]Value, error) {
	out := make([]Value, len(m.outputs))
	for i := range out {
		var tensors []tensor.Tensor
		for _, a := range answers {
			if a[i].Maps != nil {
				out[i].Maps = append(out[i].Maps, a[i].Maps...)
			} else {
				tensors = append(tensors, a[i].Tensor)
			}
		}
		if len(tensors) > 0 {
			if slices.ContainsFunc(tensors, func(t tensor.Tensor) bool { return !slices.Equal(t.Shape[1:], tensors[0].Shape[1:]) }) {
				return nil, fmt.Errorf("output %q has rows of different shapes", m.outputs[i].Name)
			}
			out[i].Tensor = tensor.Concat(tensors)
		}
	}
	return out, nil
}

// atOnce bounds the pieces of one request that are under way.
const atOnce = 32

// sideBySide calls f with 0 to n-1, and gives the first error in this order.
func sideBySide(n int, f func(i int) error) error {
	if n == 1 {
		return f(0)
	}
	var group errgroup.Group
	group.SetLimit(atOnce)
	errs := make([]error, n)
	for i := range n {
		group.Go(func() error {
			errs[i] = f(i)
			return nil // all are waited for: their memory is the request's
		})
	}
	_ = group.Wait() // see errs
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
