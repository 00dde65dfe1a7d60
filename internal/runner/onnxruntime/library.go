// Package onnxruntime evaluates ONNX models by ONNX Runtime's shared library, called
// without cgo. The library's interface is a table of functions whose places never
// change (onnxruntime_c_api.h, struct OrtApi); only places of version 17 and before
// are used, so that any library since 2024 will do.
package onnxruntime

import (
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/ebitengine/purego"

	"tategu/internal/runner"
	"tategu/internal/runner/ffi"
)

// apiVersion is that of the table which the library is asked for.
const apiVersion = 17

// Places in struct OrtApi.
const (
	fnGetErrorCode                   = 1
	fnGetErrorMessage                = 2
	fnCreateEnv                      = 3
	fnCreateSession                  = 7
	fnRun                            = 9
	fnCreateSessionOptions           = 10
	fnSetIntraOpNumThreads           = 24
	fnSetInterOpNumThreads           = 25
	fnSessionGetInputCount           = 30
	fnSessionGetOutputCount          = 31
	fnSessionGetInputTypeInfo        = 33
	fnSessionGetOutputTypeInfo       = 34
	fnSessionGetInputName            = 36
	fnSessionGetOutputName           = 37
	fnCreateRunOptions               = 39
	fnRunOptionsSetRunLogSeverity    = 41
	fnCreateTensorAsOrtValue         = 48
	fnCreateTensorWithDataAsOrtValue = 49
	fnGetTensorMutableData           = 51
	fnFillStringTensor               = 52
	fnGetStringTensorDataLength      = 53
	fnGetStringTensorContent         = 54
	fnCastTypeInfoToTensorInfo       = 55
	fnGetOnnxTypeFromTypeInfo        = 56
	fnGetTensorElementType           = 60
	fnGetDimensionsCount             = 61
	fnGetDimensions                  = 62
	fnGetTensorTypeAndShape          = 65
	fnGetValueType                   = 67
	fnCreateCPUMemoryInfo            = 69
	fnAllocatorFree                  = 76
	fnGetAllocatorWithDefaultOptions = 78
	fnGetValue                       = 80
	fnGetValueCount                  = 81
	fnReleaseEnv                     = 92
	fnReleaseStatus                  = 93
	fnReleaseMemoryInfo              = 94
	fnReleaseSession                 = 95
	fnReleaseValue                   = 96
	fnReleaseTypeInfo                = 98
	fnReleaseTensorTypeAndShapeInfo  = 99
	fnReleaseSessionOptions          = 100
	fnCastTypeInfoToMapTypeInfo      = 103
	fnCastTypeInfoToSequenceTypeInfo = 104
	fnGetMapKeyType                  = 105
	fnGetMapValueType                = 106
	fnGetSequenceElementType         = 107
	fnAddSessionConfigEntry          = 130
	fnGetStringTensorElementBuffer   = 252 // GetResizedStringTensorElementBuffer
	fnCount                          = 253
)

// invalidArgument is the library's code for inputs that a model does not take.
const invalidArgument = 2

// Library is ONNX Runtime, loaded. It is never unloaded.
type Library struct {
	table     *[fnCount]uintptr
	version   string
	env       uintptr
	memory    uintptr // describes the CPU's
	allocator uintptr // the default one, not ours to release
	options   uintptr // of all runs
}

// Open loads the library at a path.
func Open(path string) (l *Library, err error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime: %w", err)
	}
	entry, err := purego.Dlsym(handle, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("%s is not ONNX Runtime: %w", path, err)
	}
	base, _, _ := purego.SyscallN(entry)
	functions := (*[2]uintptr)(ffi.Pointer(base)) // GetApi, GetVersionString
	version, _, _ := purego.SyscallN(functions[1])
	table, _, _ := purego.SyscallN(functions[0], apiVersion)
	l = &Library{version: ffi.String(version)}
	if table == 0 {
		return nil, fmt.Errorf("ONNX Runtime %s is too old: it does not have version %d of its interface", l.version, apiVersion)
	}
	l.table = (*[fnCount]uintptr)(ffi.Pointer(table))
	const warning, deviceAllocator, defaultMemory = 2, 0, 0
	name := ffi.CString("tategu")
	if err := l.call(fnCreateEnv, warning, ffi.Address(name), ffi.Address(&l.env)); err != nil {
		return nil, err
	}
	goruntime.KeepAlive(name)
	if err := l.call(fnCreateCPUMemoryInfo, deviceAllocator, defaultMemory, ffi.Address(&l.memory)); err != nil {
		return nil, err
	}
	if err := l.call(fnCreateRunOptions, ffi.Address(&l.options)); err != nil {
		return nil, err
	}
	// What goes wrong in a run is told to whoever asked; the log need not have it too.
	const fatal = 4
	return l, errors.Join(
		l.call(fnRunOptionsSetRunLogSeverity, l.options, fatal),
		l.call(fnGetAllocatorWithDefaultOptions, ffi.Address(&l.allocator)),
	)
}

// Version is the library's.
func (l *Library) Version() string { return l.version }

// call calls a function that gives a status. What the arguments point to must lie in
// the heap, where it does not move, and be kept alive by the caller: an address here
// means nothing to Go.
func (l *Library) call(fn int, args ...uintptr) error {
	status, _, _ := purego.SyscallN(l.table[fn], args...)
	if status == 0 {
		return nil
	}
	code, _, _ := purego.SyscallN(l.table[fnGetErrorCode], status)
	text, _, _ := purego.SyscallN(l.table[fnGetErrorMessage], status)
	err := errors.New(ffi.String(text))
	l.release(fnReleaseStatus, status)
	if int32(code) == invalidArgument {
		return &runner.InputError{Err: err}
	}
	return err
}

func (l *Library) release(fn int, handle uintptr) {
	if handle != 0 {
		purego.SyscallN(l.table[fn], handle)
	}
}
