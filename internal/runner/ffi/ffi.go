// Package ffi hands memory to shared libraries that are called without cgo, and reads
// theirs. An address means nothing to Go's collector: what a library is given lies in
// the heap, where nothing moves, and whoever calls keeps it alive. What comes from a
// function that is not inlined lies there.
package ffi

import "unsafe"

// Pointer is the library's memory as Go sees it.
func Pointer(p uintptr) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(&p)) //nolint:gosec // memory that Go's collector does not know
}

// Address is of memory in the heap that the caller keeps alive.
func Address[T any](p *T) uintptr { return uintptr(unsafe.Pointer(p)) } //nolint:gosec // handed to the library alone

// First is the address of a list's elements, which lie in the heap as all that is given out.
func First[T any](list []T) uintptr {
	return Address(unsafe.SliceData(list)) //nolint:gosec // for the library alone
}

// View is n bytes of the library's memory.
func View(p uintptr, n int) []byte {
	return unsafe.Slice((*byte)(Pointer(p)), n) //nolint:gosec // the library says that there are so many
}

// CString is a string as C has it: in the heap, since this is not inlined.
//
//go:noinline
func CString(s string) *byte {
	b := append([]byte(s), 0)
	return &b[0]
}

// String copies a string of C; of none it is "".
func String(p uintptr) string {
	if p == 0 {
		return ""
	}
	n := 0
	for *(*byte)(unsafe.Add(Pointer(p), n)) != 0 {
		n++
	}
	return string(View(p, n))
}
