package score

import (
	"context"
	"encoding/json"
	"io"

	"tategu/internal/modelformat"
	"tategu/internal/resource"
)

// blockRows is how many rows are evaluated at a time: enough for the trees to stay
// in the cache, few enough for the rows to.
const blockRows = 512

// Native scores a section with a model of ours, in bounded memory beside the section.
func Native(ctx context.Context, model *modelformat.Native, spec Spec, section []byte, results, failures io.Writer) (Stats, error) {
	if spec.Input == FileList {
		return Stats{}, resource.Unimplemented("files as instances of a LightGBM or XGBoost model")
	}
	block, err := model.NewBlock(spec.Parameters)
	if err != nil {
		return Stats{}, err
	}
	out, err := NewOutput(spec, block.Outputs(), results, failures)
	if err != nil {
		return Stats{}, err
	}
	n := &native{block: block, out: out, batch: make([]Row, blockRows)}
	in := newRows(spec, section)
	in.cutKey = spec.Shape.Key != "" && model.Feature(spec.Shape.Key)
	for more := true; more; {
		if ctx.Err() != nil {
			return Stats{}, ctx.Err()
		}
		more = n.fill(in)
		if err := n.write(); err != nil {
			return Stats{}, err
		}
	}
	return out.Close()
}

// native is a section at work.
type native struct {
	block *modelformat.Block
	out   *Output
	batch []Row
	used  int
}

// fill reads the next batch; false = it is the last one.
func (n *native) fill(in *rows) (more bool) {
	n.block.Reset()
	for n.used = 0; n.used < len(n.batch); n.used++ {
		row := &n.batch[n.used]
		if !in.next(row) {
			return false
		}
		if row.Err != nil {
			continue
		}
		if err := n.block.Add(row.Instance); err != nil {
			row.Err = err
			if in.spec.Input != CSV && !json.Valid(row.record) {
				row.bad()
			}
		}
	}
	return true
}

func (n *native) write() error {
	values, err := n.block.Predict(0, n.block.Len())
	whole := err == nil
	width, at := n.block.Outputs(), 0
	for i := range n.batch[:n.used] {
		row := &n.batch[i]
		if row.Err == nil && !whole { // one of them spoils the batch: each by itself
			if values, err = n.block.Predict(at, at+1); err != nil {
				row.Err = err
				at++
			}
		}
		if row.Err != nil {
			if err := n.out.Bad(row, row.Err); err != nil {
				return err
			}
			continue
		}
		from := at * width
		if !whole {
			from = 0
		}
		if err := n.out.Good(row, Prediction{Values: values[from : from+width]}); err != nil {
			return err
		}
		at++
	}
	return nil
}
