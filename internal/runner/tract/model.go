package tract

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"

	"tategu/internal/runner"
	"tategu/internal/runner/ffi"
	"tategu/internal/tensor"
)

// Model is one that the library has loaded. It implements runner.Engine.
type Model struct {
	lib             *Library
	runnable        *cell
	inputs, outputs []runner.Spec
}

var _ runner.Engine = (*Model)(nil)

// Load opens a model file. The library uses one thread for a run.
func (l *Library) Load(path string) (*Model, error) {
	draft, err := l.open(path)
	if err != nil {
		return nil, err
	}
	m := &Model{lib: l, runnable: newCell()}
	model := newCell()
	if m.inputs, m.outputs, err = l.names(draft); err != nil {
		l.destroy(l.fn.draftDestroy, draft)
		return nil, err
	}
	// Both take what they are given, whether they succeed or not, and write that they have.
	defer goruntime.KeepAlive([]*cell{draft, model})
	if err := l.call(l.fn.draftIntoModel, ffi.Address(&draft.handle), ffi.Address(&model.handle)); err != nil {
		return nil, fmt.Errorf("%w (Tract knows the operators of neural nets alone; ONNX Runtime knows all)", err)
	}
	if err := l.call(l.fn.modelIntoRunnable, ffi.Address(&model.handle), ffi.Address(&m.runnable.handle)); err != nil {
		return nil, err
	}
	err = l.facts(m.runnable, l.fn.runnableInputFact, m.inputs)
	if err == nil {
		err = l.facts(m.runnable, l.fn.runnableOutputFact, m.outputs)
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

// open reads the file.
func (l *Library) open(path string) (draft *cell, err error) {
	onnx, draft, file := newCell(), newCell(), ffi.CString(path)
	if err := l.call(l.fn.onnxCreate, ffi.Address(&onnx.handle)); err != nil {
		return nil, err
	}
	defer l.destroy(l.fn.onnxDestroy, onnx)
	err = l.call(l.fn.onnxLoad, onnx.handle, ffi.Address(file), ffi.Address(&draft.handle))
	goruntime.KeepAlive(file)
	return draft, err
}

// names reads those of the inputs and outputs, and gives a symbol to every dimension
// of an input that has no name in the file: a first one is that of rows.
func (l *Library) names(draft *cell) (inputs, outputs []runner.Spec, err error) {
	out := newCell()
	if err := l.call(l.fn.draftInputs, draft.handle, ffi.Address(&out.number)); err != nil {
		return nil, nil, err
	}
	for i := range uintptr(out.number) {
		if err := l.call(l.fn.draftInputName, draft.handle, i, ffi.Address(&out.handle)); err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, runner.Spec{Name: l.text(out)})
		if err := l.symbols(draft, i); err != nil {
			return nil, nil, fmt.Errorf("input %q: %w", inputs[i].Name, err)
		}
	}
	if err := l.call(l.fn.draftOutputs, draft.handle, ffi.Address(&out.number)); err != nil {
		return nil, nil, err
	}
	for i := range uintptr(out.number) {
		if err := l.call(l.fn.draftOutputName, draft.handle, i, ffi.Address(&out.handle)); err != nil {
			return nil, nil, err
		}
		outputs = append(outputs, runner.Spec{Name: l.text(out)})
	}
	return inputs, outputs, nil
}

// symbols names the open dimensions of an input. The library writes what it knows of it
// as its dimensions and its type: ?,3,f32.
func (l *Library) symbols(draft *cell, input uintptr) error {
	fact, out := newCell(), newCell()
	if err := l.call(l.fn.draftInputFact, draft.handle, input, ffi.Address(&fact.handle)); err != nil {
		return err
	}
	err := l.call(l.fn.draftFactDump, fact.handle, ffi.Address(&out.handle))
	l.destroy(l.fn.draftFactDestroy, fact)
	if err != nil {
		return err
	}
	text := named(l.text(out), int(input))
	if text == "" {
		return nil
	}
	asked := ffi.CString(text)
	if err := l.call(l.fn.draftFactParse, draft.handle, ffi.Address(asked), ffi.Address(&fact.handle)); err != nil {
		return fmt.Errorf("its shape %s: %w", text, err)
	}
	defer l.destroy(l.fn.draftFactDestroy, fact)
	err = l.call(l.fn.draftSetInputFact, draft.handle, input, fact.handle)
	goruntime.KeepAlive(asked)
	return err
}

// named gives names to the question marks of a fact; "" when there are none.
func named(fact string, input int) string {
	parts := strings.Split(fact, ",")
	changed := false
	for axis, p := range parts {
		if p != "?" {
			continue
		}
		changed = true
		if parts[axis] = "tategu_rows"; axis > 0 {
			parts[axis] = fmt.Sprintf("tategu_%d_%d", input, axis)
		}
	}
	if !changed {
		return ""
	}
	return strings.Join(parts, ",")
}

// facts reads the types and shapes of inputs or outputs.
func (l *Library) facts(runnable *cell, which uintptr, specs []runner.Spec) error {
	fact := newCell()
	for i := range specs {
		err := l.call(which, runnable.handle, uintptr(i), ffi.Address(&fact.handle))
		if err == nil {
			err = l.fact(fact, &specs[i])
			l.destroy(l.fn.factDestroy, fact)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", specs[i].Name, err)
		}
	}
	return nil
}

func (l *Library) fact(fact *cell, spec *runner.Spec) error {
	out := newCell()
	if err := l.call(l.fn.factType, fact.handle, ffi.Address(&out.kind)); err != nil {
		return err
	}
	var err error
	if spec.Type, err = typeOf(out.kind); err != nil {
		return err
	}
	if err := l.call(l.fn.factRank, fact.handle, ffi.Address(&out.number)); err != nil {
		return err
	}
	spec.Shape = make([]int64, out.number)
	for axis := range spec.Shape {
		if err := l.call(l.fn.factDim, fact.handle, uintptr(axis), ffi.Address(&out.handle)); err != nil {
			return err
		}
		spec.Shape[axis] = -1 // of a symbol, which has no number
		if l.call(l.fn.dimToInt64, out.handle, ffi.Address(&out.number)) == nil {
			spec.Shape[axis] = out.number
		}
		l.destroy(l.fn.dimDestroy, out)
	}
	return nil
}

// Close frees the model. Nothing may run.
func (m *Model) Close() error {
	m.lib.destroy(m.lib.fn.runnableRelease, m.runnable)
	m.runnable.handle = 0
	return nil
}

// Describe implements runner.Engine.
func (m *Model) Describe() string { return "Tract " + m.lib.version }

// Inputs implements runner.Engine.
func (m *Model) Inputs() []runner.Spec { return m.inputs }

// Outputs implements runner.Engine.
func (m *Model) Outputs() []runner.Spec { return m.outputs }

// types is enum DatumType of tract.h, in the order of tensor.Type; 0 is what it does not have.
func types() [tensor.String + 1]uint32 {
	return [...]uint32{
		tensor.Bool: 0x01, tensor.Uint8: 0x11, tensor.Uint16: 0x12, tensor.Uint32: 0x14, tensor.Uint64: 0x18, tensor.Int8: 0x21, tensor.Int16: 0x22,
		tensor.Int32: 0x24, tensor.Int64: 0x28, tensor.Float16: 0x32, tensor.Float32: 0x34, tensor.Float64: 0x38, tensor.String: 0,
	}
}

func typeOf(kind uint32) (tensor.Type, error) {
	for t, k := range types() {
		if k == kind && k != 0 {
			return tensor.Type(t), nil
		}
	}
	return tensor.Invalid, fmt.Errorf("has elements of a type that is not supported (number %#x of Tract's types)", kind)
}
