package onnxruntime

import (
	"fmt"
	goruntime "runtime"

	"tategu/internal/runner"
	"tategu/internal/runner/ffi"
	"tategu/internal/tensor"
)

// frame is what one run needs of memory that the library reads and writes.
type frame struct {
	in, out []uintptr // OrtValue
	none    [1]int64  // stands for memory of no length
	cell    cell
}

//go:noinline
func newFrame(in, out int) *frame {
	return &frame{in: make([]uintptr, in), out: make([]uintptr, out)}
}

// Run implements runner.Engine.
func (s *Session) Run(inputs []tensor.Tensor) ([]runner.Value, error) {
	l, f := s.lib, newFrame(len(s.inputs), len(s.outputs))
	defer func() {
		for _, v := range f.in {
			l.release(fnReleaseValue, v)
		}
		for _, v := range f.out {
			l.release(fnReleaseValue, v)
		}
		goruntime.KeepAlive(inputs)
	}()
	for i, t := range inputs {
		if err := l.value(f, t, &f.in[i]); err != nil {
			return nil, fmt.Errorf("input %q: %w", s.inputs[i].Name, err)
		}
	}
	err := l.call(fnRun, s.handle, l.options,
		ffi.First(s.inName), ffi.First(f.in), uintptr(len(f.in)), ffi.First(s.outName), uintptr(len(f.out)), ffi.First(f.out))
	if err != nil {
		return nil, err
	}
	values := make([]runner.Value, len(f.out))
	for i, v := range f.out {
		if s.outputs[i].Maps {
			values[i].Maps, err = l.maps(f, v)
		} else {
			values[i].Tensor, err = l.tensor(f, v)
		}
		if err != nil {
			return nil, fmt.Errorf("output %q: %w", s.outputs[i].Name, err)
		}
	}
	return values, nil
}

// value makes an OrtValue over the tensor's own memory; strings are copied.
func (l *Library) value(f *frame, t tensor.Tensor, out *uintptr) error {
	shape := ffi.First(t.Shape)
	if len(t.Shape) == 0 {
		shape = ffi.Address(&f.none[0])
	}
	rank, element := uintptr(len(t.Shape)), elementOf(t.Type)
	if t.Type != tensor.String {
		data := ffi.First(t.Data)
		if len(t.Data) == 0 {
			data = ffi.Address(&f.none[0])
		}
		return l.call(fnCreateTensorWithDataAsOrtValue, l.memory, data, uintptr(len(t.Data)), shape, rank, element, ffi.Address(out))
	}
	if err := l.call(fnCreateTensorAsOrtValue, l.allocator, shape, rank, element, ffi.Address(out)); err != nil {
		return err
	}
	for i, text := range t.Strings {
		// The other ways to fill in strings end them at a zero byte.
		if err := l.call(fnGetStringTensorElementBuffer, *out, uintptr(i), uintptr(len(text)), ffi.Address(&f.cell.handle)); err != nil {
			return err
		}
		copy(ffi.View(f.cell.handle, len(text)), text)
	}
	return nil
}

// tensor copies an OrtValue.
func (l *Library) tensor(f *frame, v uintptr) (tensor.Tensor, error) {
	if err := l.call(fnGetTensorTypeAndShape, v, ffi.Address(&f.cell.handle)); err != nil {
		return tensor.Tensor{}, err
	}
	info := f.cell.handle
	defer l.release(fnReleaseTensorTypeAndShapeInfo, info)
	typ, shape, err := l.typeAndShape(info)
	if err != nil {
		return tensor.Tensor{}, err
	}
	t := tensor.Tensor{Type: typ, Shape: shape}
	n, ok := tensor.Elements(shape)
	if !ok {
		return t, fmt.Errorf("its shape is %s", tensor.Shape(shape))
	}
	if typ == tensor.String {
		t.Strings, err = l.strings(f, v, n)
		return t, err
	}
	if t.Data = tensor.Bytes(n * typ.Size()); n == 0 {
		return t, nil
	}
	if err := l.call(fnGetTensorMutableData, v, ffi.Address(&f.cell.handle)); err != nil {
		return t, err
	}
	copy(t.Data, ffi.View(f.cell.handle, len(t.Data)))
	return t, nil
}

// strings copies those of an OrtValue: all of them after each other, and where each begins.
func (l *Library) strings(f *frame, v uintptr, n int) ([][]byte, error) {
	all := make([][]byte, n)
	if n == 0 {
		return all, nil
	}
	if err := l.call(fnGetStringTensorDataLength, v, ffi.Address(&f.cell.number)); err != nil {
		return nil, err
	}
	size := int(f.cell.number)
	text, begins := tensor.Bytes(size), newShape(n+1)
	data := ffi.First(text)
	if size == 0 {
		data = ffi.Address(&f.none[0])
	}
	if err := l.call(fnGetStringTensorContent, v, data, uintptr(size), ffi.First(begins), uintptr(n)); err != nil {
		return nil, err
	}
	begins[n] = int64(size)
	for i := range all {
		all[i] = text[begins[i]:begins[i+1]:begins[i+1]]
	}
	return all, nil
}

// maps copies a sequence of maps, each a tensor of keys and one of values.
func (l *Library) maps(f *frame, v uintptr) ([]runner.Map, error) {
	if err := l.call(fnGetValueCount, v, ffi.Address(&f.cell.number)); err != nil {
		return nil, err
	}
	maps := make([]runner.Map, f.cell.number)
	for i := range maps {
		if err := l.call(fnGetValue, v, uintptr(i), l.allocator, ffi.Address(&f.cell.handle)); err != nil {
			return nil, err
		}
		if err := l.entries(f, f.cell.handle, &maps[i]); err != nil {
			return nil, err
		}
	}
	return maps, nil
}

// entries takes a map apart and releases it.
func (l *Library) entries(f *frame, v uintptr, m *runner.Map) error {
	defer l.release(fnReleaseValue, v)
	for i, part := range []*tensor.Tensor{&m.Keys, &m.Values} {
		if err := l.call(fnGetValue, v, uintptr(i), l.allocator, ffi.Address(&f.cell.handle)); err != nil {
			return err
		}
		half := f.cell.handle
		var err error
		*part, err = l.tensor(f, half)
		l.release(fnReleaseValue, half)
		if err != nil {
			return err
		}
	}
	return nil
}
