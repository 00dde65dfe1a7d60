// Package tract evaluates ONNX models by Tract's shared library, called without cgo
// (api/tract.h of sonos/tract). It is smaller than ONNX Runtime and opens a model in
// milliseconds; it knows neural nets alone, not the trees and encoders of ai.onnx.ml,
// and no strings.
package tract

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"strings"

	"github.com/ebitengine/purego"

	"tategu/internal/runner/ffi"
)

// functions of the library, by the names that it gives them.
type functions struct {
	version, lastError, freeString                   uintptr
	onnxCreate, onnxDestroy, onnxLoad                uintptr
	draftInputs, draftInputName, draftInputFact      uintptr
	draftOutputs, draftOutputName, draftSetInputFact uintptr
	draftFactDump, draftFactParse, draftFactDestroy  uintptr
	draftIntoModel, draftDestroy                     uintptr
	modelIntoRunnable                                uintptr
	runnableInputFact, runnableOutputFact            uintptr
	runnableRun, runnableRelease                     uintptr
	factType, factRank, factDim, factDestroy         uintptr
	dimToInt64, dimDestroy                           uintptr
	tensorFromBytes, tensorAsBytes, tensorDestroy    uintptr
}

func (f *functions) byName() map[string]*uintptr {
	return map[string]*uintptr{
		"tract_version": &f.version, "tract_get_last_error": &f.lastError, "tract_free_cstring": &f.freeString,
		"tract_onnx_create": &f.onnxCreate, "tract_onnx_destroy": &f.onnxDestroy, "tract_onnx_load": &f.onnxLoad,
		"tract_inference_model_input_count": &f.draftInputs, "tract_inference_model_input_name": &f.draftInputName,
		"tract_inference_model_input_fact": &f.draftInputFact, "tract_inference_model_set_input_fact": &f.draftSetInputFact,
		"tract_inference_model_output_count": &f.draftOutputs, "tract_inference_model_output_name": &f.draftOutputName,
		"tract_inference_fact_dump": &f.draftFactDump, "tract_inference_fact_parse": &f.draftFactParse, "tract_inference_fact_destroy": &f.draftFactDestroy,
		"tract_inference_model_into_model": &f.draftIntoModel, "tract_inference_model_destroy": &f.draftDestroy,
		"tract_model_into_runnable":  &f.modelIntoRunnable,
		"tract_runnable_input_fact":  &f.runnableInputFact,
		"tract_runnable_output_fact": &f.runnableOutputFact,
		"tract_runnable_run":         &f.runnableRun, "tract_runnable_release": &f.runnableRelease,
		"tract_fact_datum_type": &f.factType, "tract_fact_rank": &f.factRank, "tract_fact_dim": &f.factDim, "tract_fact_destroy": &f.factDestroy,
		"tract_dim_to_int64": &f.dimToInt64, "tract_dim_destroy": &f.dimDestroy,
		"tract_tensor_from_bytes": &f.tensorFromBytes, "tract_tensor_as_bytes": &f.tensorAsBytes, "tract_tensor_destroy": &f.tensorDestroy,
	}
}

// Library is Tract, loaded. It is never unloaded.
type Library struct {
	fn      functions
	version string
}

// Open loads the library at a path: Tract's own, or that in the Python package "tract",
// which needs no Python.
func Open(path string) (*Library, error) {
	// Lazily: the package's library names functions of Python that are never called.
	handle, err := purego.Dlopen(path, purego.RTLD_LAZY|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load Tract: %w", err)
	}
	l := &Library{}
	for name, to := range l.fn.byName() {
		if *to, err = purego.Dlsym(handle, name); err != nil {
			return nil, fmt.Errorf("%s is not Tract of version 0.23 or later: %w", path, err)
		}
	}
	version, _, _ := purego.SyscallN(l.fn.version)
	l.version = ffi.String(version)
	return l, nil
}

// Version is the library's.
func (l *Library) Version() string { return l.version }

// call calls a function that tells of success. What the arguments point to is the
// caller's to keep alive (see ffi).
func (l *Library) call(fn uintptr, args ...uintptr) error {
	goruntime.LockOSThread() // the library keeps the text of an error by thread
	defer goruntime.UnlockOSThread()
	if failed, _, _ := purego.SyscallN(fn, args...); uint32(failed) == 0 {
		return nil
	}
	text, _, _ := purego.SyscallN(l.fn.lastError)
	return errors.New(plain(ffi.String(text)))
}

// plain is an error without the stack of Rust, in one line.
func plain(text string) string {
	text, _, _ = strings.Cut(text, "Stack backtrace:")
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "\n\nCaused by:", ":")), " ")
}

// text takes a string that the library has made.
func (l *Library) text(c *cell) string {
	s := ffi.String(c.handle)
	purego.SyscallN(l.fn.freeString, c.handle)
	return s
}

// destroy ends what a cell holds; of nothing it does nothing.
func (l *Library) destroy(fn uintptr, c *cell) {
	if c.handle != 0 {
		purego.SyscallN(fn, ffi.Address(&c.handle))
		goruntime.KeepAlive(c)
	}
}

// cell is where the library writes one answer. It comes from newCell alone, so that it
// lies in the heap.
type cell struct {
	handle uintptr
	number int64
	kind   uint32
}

//go:noinline
func newCell() *cell { return &cell{} }
