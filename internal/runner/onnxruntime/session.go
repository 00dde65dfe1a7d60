package onnxruntime

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"tategu/internal/runner"
	"tategu/internal/runner/ffi"
	"tategu/internal/tensor"
)

// Session is a model that the library has loaded. It implements runner.Engine.
type Session struct {
	lib             *Library
	handle          uintptr
	threads         int
	inputs, outputs []runner.Spec
	// Names as C has them, and the arrays of their addresses.
	names           []*byte
	inName, outName []uintptr
}

var _ runner.Engine = (*Session)(nil)

// cell is where the library writes one answer. It comes from newCell alone, so that it
// lies in the heap.
type cell struct {
	handle uintptr
	number int64
	kind   int32
}

//go:noinline
func newCell() *cell { return &cell{} }

// Load opens a model file. Each run of it uses so many threads.
func (l *Library) Load(path string, threads int) (*Session, error) {
	options, out := newCell(), newCell()
	if err := l.call(fnCreateSessionOptions, ffi.Address(&options.handle)); err != nil {
		return nil, err
	}
	defer l.release(fnReleaseSessionOptions, options.handle)
	// A thread that waits for work by spinning takes a core from other replicas.
	name, value, file := ffi.CString("session.intra_op.allow_spinning"), ffi.CString("0"), ffi.CString(path)
	err := errors.Join(
		l.call(fnSetIntraOpNumThreads, options.handle, uintptr(threads)),
		l.call(fnSetInterOpNumThreads, options.handle, 1),
		l.call(fnAddSessionConfigEntry, options.handle, ffi.Address(name), ffi.Address(value)),
	)
	if err != nil {
		return nil, err
	}
	err = l.call(fnCreateSession, l.env, ffi.Address(file), options.handle, ffi.Address(&out.handle))
	goruntime.KeepAlive([]*byte{name, value, file})
	if err != nil {
		return nil, err
	}
	s := &Session{lib: l, handle: out.handle, threads: threads}
	if err := s.describe(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Close frees the model. Nothing may run.
func (s *Session) Close() error {
	s.lib.release(fnReleaseSession, s.handle)
	s.handle = 0
	return nil
}

// Describe implements runner.Engine.
func (s *Session) Describe() string {
	return fmt.Sprintf("ONNX Runtime %s, %d threads a run", s.lib.version, s.threads)
}

// Inputs implements runner.Engine.
func (s *Session) Inputs() []runner.Spec { return s.inputs }

// Outputs implements runner.Engine.
func (s *Session) Outputs() []runner.Spec { return s.outputs }

// describe asks what goes in and comes out.
func (s *Session) describe() (err error) {
	if s.inputs, s.inName, err = s.specs(fnSessionGetInputCount, fnSessionGetInputName, fnSessionGetInputTypeInfo); err != nil {
		return fmt.Errorf("input %w", err)
	}
	for _, in := range s.inputs {
		if in.Maps {
			return fmt.Errorf("input %q takes maps, which are not supported: convert the model with one input a feature", in.Name)
		}
	}
	if s.outputs, s.outName, err = s.specs(fnSessionGetOutputCount, fnSessionGetOutputName, fnSessionGetOutputTypeInfo); err != nil {
		return fmt.Errorf("output %w", err)
	}
	return nil
}

func (s *Session) specs(count, name, info int) (specs []runner.Spec, names []uintptr, err error) {
	l, out := s.lib, newCell()
	if err := l.call(count, s.handle, ffi.Address(&out.number)); err != nil {
		return nil, nil, err
	}
	for i := range uintptr(out.number) {
		if err := l.call(name, s.handle, i, l.allocator, ffi.Address(&out.handle)); err != nil {
			return nil, nil, err
		}
		text := ffi.String(out.handle)
		if err := l.call(fnAllocatorFree, l.allocator, out.handle); err != nil {
			return nil, nil, err
		}
		if err := l.call(info, s.handle, i, ffi.Address(&out.handle)); err != nil {
			return nil, nil, err
		}
		spec, err := l.spec(out.handle)
		l.release(fnReleaseTypeInfo, out.handle)
		if err != nil {
			return nil, nil, fmt.Errorf("%q %w", text, err)
		}
		spec.Name = text
		kept := ffi.CString(text)
		s.names = append(s.names, kept)
		specs, names = append(specs, spec), append(names, ffi.Address(kept))
	}
	return specs, names, nil
}

// Kinds of values (enum ONNXType).
const (
	kindTensor   = 1
	kindSequence = 2
	kindMap      = 3
)

// spec reads an OrtTypeInfo.
func (l *Library) spec(info uintptr) (runner.Spec, error) {
	out := newCell()
	if err := l.call(fnGetOnnxTypeFromTypeInfo, info, ffi.Address(&out.kind)); err != nil {
		return runner.Spec{}, err
	}
	switch out.kind {
	case kindTensor:
		if err := l.call(fnCastTypeInfoToTensorInfo, info, ffi.Address(&out.handle)); err != nil {
			return runner.Spec{}, err
		}
		t, shape, err := l.typeAndShape(out.handle)
		return runner.Spec{Type: t, Shape: shape}, err
	case kindSequence:
		return l.sequence(info)
	}
	return runner.Spec{}, errors.New("is neither a tensor nor a list of maps, which is not supported")
}

// sequence reads what a sequence holds: maps from keys to numbers are all that is known.
func (l *Library) sequence(info uintptr) (runner.Spec, error) {
	unknown := errors.New("is a sequence of something else than maps, which is not supported")
	out := newCell()
	if err := l.call(fnCastTypeInfoToSequenceTypeInfo, info, ffi.Address(&out.handle)); err != nil {
		return runner.Spec{}, err
	}
	if err := l.call(fnGetSequenceElementType, out.handle, ffi.Address(&out.handle)); err != nil {
		return runner.Spec{}, err
	}
	element := out.handle
	defer l.release(fnReleaseTypeInfo, element)
	if err := l.call(fnGetOnnxTypeFromTypeInfo, element, ffi.Address(&out.kind)); err != nil {
		return runner.Spec{}, err
	}
	if out.kind != kindMap {
		return runner.Spec{}, unknown
	}
	if err := l.call(fnCastTypeInfoToMapTypeInfo, element, ffi.Address(&out.handle)); err != nil {
		return runner.Spec{}, err
	}
	entry := out.handle
	if err := l.call(fnGetMapKeyType, entry, ffi.Address(&out.kind)); err != nil {
		return runner.Spec{}, err
	}
	if key, err := typeOf(out.kind); err != nil || key != tensor.Int64 && key != tensor.String {
		return runner.Spec{}, unknown
	}
	if err := l.call(fnGetMapValueType, entry, ffi.Address(&out.handle)); err != nil {
		return runner.Spec{}, err
	}
	value := out.handle
	defer l.release(fnReleaseTypeInfo, value)
	spec, err := l.spec(value)
	if err != nil || spec.Maps {
		return runner.Spec{}, unknown
	}
	return runner.Spec{Type: spec.Type, Maps: true}, nil
}

// typeAndShape reads an OrtTensorTypeAndShapeInfo.
func (l *Library) typeAndShape(info uintptr) (tensor.Type, []int64, error) {
	out := newCell()
	if err := l.call(fnGetTensorElementType, info, ffi.Address(&out.kind)); err != nil {
		return 0, nil, err
	}
	t, err := typeOf(out.kind)
	if err != nil {
		return 0, nil, err
	}
	if err := l.call(fnGetDimensionsCount, info, ffi.Address(&out.number)); err != nil {
		return 0, nil, err
	}
	shape := newShape(int(out.number))
	if len(shape) > 0 {
		err = l.call(fnGetDimensions, info, ffi.First(shape), uintptr(len(shape)))
	}
	return t, shape, err
}

// newShape is in the heap, whatever its length.
//
//go:noinline
func newShape(n int) []int64 { return make([]int64, n) }

// elementTypes is enum ONNXTensorElementDataType up to bfloat16.
func elementTypes() []tensor.Type {
	return []tensor.Type{
		tensor.Invalid, tensor.Float32, tensor.Uint8, tensor.Int8, tensor.Uint16, tensor.Int16, tensor.Int32, tensor.Int64, tensor.String,
		tensor.Bool, tensor.Float16, tensor.Float64, tensor.Uint32, tensor.Uint64, tensor.Invalid, tensor.Invalid, tensor.BFloat16,
	}
}

func typeOf(element int32) (tensor.Type, error) {
	if all := elementTypes(); element >= 0 && int(element) < len(all) && all[element] != tensor.Invalid {
		return all[element], nil
	}
	return tensor.Invalid, fmt.Errorf("has elements of a type that is not supported (number %d of onnxruntime's types)", element)
}

func elementOf(t tensor.Type) uintptr {
	for i, e := range elementTypes() {
		if e == t {
			return uintptr(i)
		}
	}
	return 0
}
