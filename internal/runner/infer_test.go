package runner

import (
	"errors"
	"testing"

	"tategu/internal/oip"
	"tategu/internal/tensor"
)

// TestRowsWithoutElements: a shape such as [1000000000000, 0] needs no bytes of the
// request, and must not make as many pieces.
func TestRowsWithoutElements(t *testing.T) {
	t.Parallel()
	f := newFake()
	f.in = []Spec{{Name: "x", Type: tensor.Float32, Shape: []int64{-1, -1}}}
	m := modelOf(f)
	for _, shape := range [][]int64{{1 << 40, 0}, {0, 1 << 40}} {
		in := oip.Named{Name: "x", Tensor: tensor.Tensor{Type: tensor.Float32, Shape: shape, Data: []byte{}}}
		_, rows, err := m.inputsOf(&oip.Request{Inputs: []oip.Named{in}})
		_, told := errors.AsType[*requestError](err)
		if refused := shape[0] > 0; told != refused || err == nil && rows != 0 {
			t.Errorf("%v: %d rows, %v", shape, rows, err)
		}
	}
}
