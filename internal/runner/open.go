package runner

import (
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"tategu/internal/tensor"
)

// Loader loads the model with so many threads for each run.
type Loader func(threads int) (Engine, error)

// errClosed answers requests after the end.
var errClosed = errors.New("the runner is ending")

// Times that decide whether several threads work on one run.
const (
	longRun  = 5 * time.Millisecond // below, one thread is enough
	worthIt  = 0.75                 // of the time with one thread that several must stay below
	warmRuns = 5
)

// open loads the model, runs it until it is warm, and finds out how its runs share the
// cores: threads times runs at once are the cores. A model that is fast with one thread
// is run on every core at a time; a slow one gets all of them for each run, which halves
// the wait of a lone client. threads 0 leaves that to measurement.
func open(load Loader, samples []byte, threads, cores int) (m *Model, runs int, err error) {
	first := max(1, threads)
	m, took, err := try(load, samples, first)
	if err != nil || threads > 0 || cores == 1 || took < longRun {
		return m, max(1, cores/first), err
	}
	more, faster, err := try(load, samples, cores)
	if err != nil {
		return nil, 0, errors.Join(err, closeEngine(m.engine))
	}
	if faster < time.Duration(worthIt*float64(took)) {
		return more, 1, closeEngine(m.engine)
	}
	return m, cores, closeEngine(more.engine)
}

func closeEngine(e Engine) error {
	if c, ok := e.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// try loads the model and warms it up. took is the time of one run with one row, 0 when
// it could not be run.
func try(load Loader, samples []byte, threads int) (m *Model, took time.Duration, err error) {
	e, err := load(threads)
	if err != nil {
		return nil, 0, err
	}
	m = &Model{engine: e, inputs: e.Inputs(), outputs: e.Outputs()}
	if len(m.inputs) == 0 || len(m.outputs) == 0 {
		return nil, 0, errors.Join(errors.New("the model has no inputs or no outputs"), closeEngine(e))
	}
	m.mode, m.single, m.why = modeByShape(m.inputs, m.outputs)
	return m, m.warm(samples), nil
}

// openSizes are tried for dimensions, but the first, that may have any length.
func openSizes() []int64 { return []int64{1, 8, 32, 224} }

// rowsToTry is how many rows are run alone and together.
const rowsToTry = 4

// trials gives rows to warm up with: those of the samples, as often as they have to
// come, then made-up ones.
func (m *Model) trials(samples []byte) [][][]tensor.Tensor {
	var all [][][]tensor.Tensor
	in := newInstances(m)
	if len(samples) > 0 && in.read(samples) == nil && len(in.parts) > 0 {
		p, trial := in.parts[0], make([][]tensor.Tensor, rowsToTry)
		for r := range trial {
			trial[r] = p.inputs
			if m.mode != Whole {
				trial[r] = slices.Clone(p.inputs)
				for i, t := range p.inputs {
					trial[r][i] = t.Rows(r%p.rows, r%p.rows+1)
					trial[r][i].Data = tensor.Aligned(t.Type, trial[r][i].Data)
				}
			}
		}
		all = append(all, trial)
	}
	for _, size := range openSizes() {
		trial := make([][]tensor.Tensor, rowsToTry)
		for r := range trial {
			trial[r] = m.invent(size, uint64(r)+1)
		}
		all = append(all, trial)
	}
	return all
}

// warm runs the model on samples or made-up inputs. Where shapes allow to merge requests, it also
// finds out whether rows leave each other alone: a model over sequences may have their
// steps in the first dimension.
func (m *Model) warm(samples []byte) time.Duration {
	var last error
	for _, trial := range m.trials(samples) {
		first, err := m.engine.Run(trial[0])
		if err != nil {
			last = err
			continue
		}
		took := m.time(trial[0])
		if m.mode == Rows && !m.single {
			m.judge(trial, first)
		}
		return took
	}
	m.why += "; it could not be tried: " + last.Error()
	return 0
}

func (m *Model) time(x []tensor.Tensor) time.Duration {
	best := time.Duration(math.MaxInt64)
	for range warmRuns {
		begin := time.Now()
		if _, err := m.engine.Run(x); err != nil {
			return 0
		}
		best = min(best, time.Since(begin))
	}
	return best
}

// judge compares rows that are run together with the same rows run alone.
func (m *Model) judge(trial [][]tensor.Tensor, first []Value) {
	again, err := m.engine.Run(trial[0])
	if err != nil || m.differ(first, again) != nil {
		m.why += "; its answers to the same inputs differ, so requests are not merged"
		return
	}
	alone := make([][]Value, len(trial))
	parts := make([][]tensor.Tensor, len(m.inputs))
	for r, row := range trial {
		if alone[r], err = m.engine.Run(row); err != nil {
			m.why += "; some of the rows to try fail, so requests are not merged: " + err.Error()
			return
		}
		for i, t := range row {
			parts[i] = append(parts[i], t)
		}
	}
	together := make([]tensor.Tensor, len(parts))
	for i, p := range parts {
		together[i] = tensor.Concat(p)
	}
	values, err := m.engine.Run(together)
	if err == nil {
		err = m.rowsOf(values, len(trial))
	}
	for r := 0; err == nil && r < len(trial); r++ {
		part := make([]Value, len(values))
		for i, v := range values {
			part[i] = v.rows(r, r+1)
		}
		err = m.differ(alone[r], part)
	}
	if err != nil {
		m.mode, m.why = Whole, "rows change each other's answers: "+err.Error()
		return
	}
	m.mode, m.why = Merged, "rows were seen to leave each other alone"
}

// invent makes inputs of one row: numbers between 0 and 1, which are indexes too.
func (m *Model) invent(size int64, seed uint64) []tensor.Tensor {
	random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // the same inputs each time are wanted
	out := make([]tensor.Tensor, len(m.inputs))
	for i, spec := range m.inputs {
		shape := slices.Clone(spec.Shape)
		for k, d := range shape {
			if d < 0 && k == 0 && m.mode != Whole {
				shape[k] = 1
			} else if d < 0 {
				shape[k] = size
			}
		}
		n, _ := tensor.Elements(shape)
		b := tensor.Builder{}
		b.Reset(spec.Type)
		for range n {
			b.Invent(random)
		}
		out[i] = b.Tensor(0, shape)
	}
	return out
}

// tolerance of what is rounded differently in larger batches, as a part of the largest
// value of an output.
const tolerance = 1e-4

// differ says where two answers differ by more than rounding; nil = nowhere.
func (m *Model) differ(a, b []Value) error {
	for i := range a {
		name := m.outputs[i].Name
		if len(a[i].Maps) != len(b[i].Maps) {
			return fmt.Errorf("output %q", name)
		}
		for k := range a[i].Maps {
			if !a[i].Maps[k].Keys.Near(b[i].Maps[k].Keys, 0) || !a[i].Maps[k].Values.Near(b[i].Maps[k].Values, tolerance) {
				return fmt.Errorf("output %q", name)
			}
		}
		if a[i].Maps == nil && !a[i].Near(b[i].Tensor, tolerance) {
			return fmt.Errorf("output %q", name)
		}
	}
	return nil
}
