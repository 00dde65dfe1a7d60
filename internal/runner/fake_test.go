package runner

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"tategu/internal/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake doubles its float32 rows, and fails over one that is negative.
type fake struct {
	in, out []Spec
	before  func() // each run

	mu   sync.Mutex
	runs []int // rows of each
}

func newFake() *fake {
	return &fake{
		in:  []Spec{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, 2}}},
		out: []Spec{{Name: "y", Type: tensor.Float32, Shape: []int64{-1, 2}}},
	}
}

func (f *fake) Describe() string { return "fake" }
func (f *fake) Inputs() []Spec   { return f.in }
func (f *fake) Outputs() []Spec  { return f.out }

func (f *fake) Run(inputs []tensor.Tensor) ([]Value, error) {
	if f.before != nil {
		f.before()
	}
	x := inputs[0]
	f.mu.Lock()
	f.runs = append(f.runs, int(x.Shape[0]))
	f.mu.Unlock()
	y := tensor.Tensor{Type: x.Type, Shape: slices.Clone(x.Shape), Data: tensor.Bytes(len(x.Data))}
	for i := 0; i < len(x.Data); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(x.Data[i:]))
		if v < 0 {
			return nil, &InputError{errors.New("a row is negative")}
		}
		binary.LittleEndian.PutUint32(y.Data[i:], math.Float32bits(2*v))
	}
	return []Value{{Tensor: y}}, nil
}

func (f *fake) seen() []int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.runs)
}

// modelOf is a model that merges requests.
func modelOf(f *fake) *Model {
	return &Model{engine: f, inputs: f.in, outputs: f.out, mode: Merged}
}

func row(values ...float32) []tensor.Tensor {
	t := tensor.Tensor{Type: tensor.Float32, Shape: []int64{int64(len(values) / 2), 2}}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return []tensor.Tensor{t}
}
