package tract

import (
	"fmt"
	goruntime "runtime"
	"unsafe"

	"tategu/internal/runner"
	"tategu/internal/runner/ffi"
	"tategu/internal/tensor"
)

// frame is what one run needs of memory that the library reads and writes.
type frame struct {
	in, out     []uintptr // tensors of the library
	none        [1]uint64 // stands for memory of no length
	kind        uint32
	rank        int64
	shape, data uintptr
}

//go:noinline
func newFrame(in, out int) *frame {
	return &frame{in: make([]uintptr, in), out: make([]uintptr, out)}
}

// Run implements runner.Engine. A run knows nothing but its inputs, so what fails is
// theirs.
func (m *Model) Run(inputs []tensor.Tensor) ([]runner.Value, error) {
	l, f := m.lib, newFrame(len(m.inputs), len(m.outputs))
	defer func() {
		for _, list := range [][]uintptr{f.in, f.out} {
			for i := range list {
				if list[i] != 0 {
					_ = l.call(l.fn.tensorDestroy, ffi.Address(&list[i])) // it fails for none alone
				}
			}
		}
		goruntime.KeepAlive(inputs)
	}()
	for i, t := range inputs {
		if err := l.tensor(f, t, &f.in[i]); err != nil {
			return nil, fmt.Errorf("input %q: %w", m.inputs[i].Name, err)
		}
	}
	if err := l.call(l.fn.runnableRun, m.runnable.handle, ffi.First(f.in), ffi.First(f.out)); err != nil {
		return nil, &runner.InputError{Err: err}
	}
	values := make([]runner.Value, len(f.out))
	for i, v := range f.out {
		var err error
		if values[i].Tensor, err = l.copyOf(f, v); err != nil {
			return nil, fmt.Errorf("output %q: %w", m.outputs[i].Name, err)
		}
	}
	return values, nil
}

// tensor makes one of the library's, with a copy of the data.
func (l *Library) tensor(f *frame, t tensor.Tensor, out *uintptr) error {
	shape, data := ffi.First(t.Shape), ffi.First(t.Data)
	if len(t.Shape) == 0 {
		shape = ffi.Address(&f.none[0])
	}
	if len(t.Data) == 0 {
		data = ffi.Address(&f.none[0])
	}
	return l.call(l.fn.tensorFromBytes, uintptr(types()[t.Type]), uintptr(len(t.Shape)), shape, data, ffi.Address(out))
}

// copyOf copies a tensor of the library's.
func (l *Library) copyOf(f *frame, v uintptr) (tensor.Tensor, error) {
	if err := l.call(l.fn.tensorAsBytes, v, ffi.Address(&f.kind), ffi.Address(&f.rank), ffi.Address(&f.shape), ffi.Address(&f.data)); err != nil {
		return tensor.Tensor{}, err
	}
	typ, err := typeOf(f.kind)
	if err != nil {
		return tensor.Tensor{}, err
	}
	t := tensor.Tensor{Type: typ, Shape: make([]int64, f.rank)}
	if f.rank > 0 {
		copy(t.Shape, unsafe.Slice((*int64)(ffi.Pointer(f.shape)), f.rank)) //nolint:gosec // the library says that there are so many
	}
	n, ok := tensor.Elements(t.Shape)
	if !ok {
		return t, fmt.Errorf("its shape is %s", tensor.Shape(t.Shape))
	}
	if t.Data = tensor.Bytes(n * typ.Size()); n > 0 {
		copy(t.Data, ffi.View(f.data, len(t.Data)))
	}
	return t, nil
}
