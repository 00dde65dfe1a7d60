// Package brotli stands in for github.com/andybalholm/brotli, which the Parquet library
// needs for columns that nearly nobody writes: it would be 0.8 MB of the binary. Such
// columns are refused by name (docs/adr/0023).
package brotli

import (
	"errors"
	"io"
)

// ErrUnsupported is what reading and writing ends with.
var ErrUnsupported = errors.New("columns that are compressed with brotli are not read: write the file with zstd or snappy")

// WriterOptions are those of the library.
type WriterOptions struct{ Quality, LGWin int }

// Reader reads nothing.
type Reader struct{}

// NewReader gives a reader that says what is wrong.
func NewReader(io.Reader) *Reader { return &Reader{} }

// Read implements io.Reader.
func (*Reader) Read([]byte) (int, error) { return 0, ErrUnsupported }

// Reset is the library's.
func (*Reader) Reset(io.Reader) error { return nil }

// Writer writes nothing.
type Writer struct{}

// NewWriterOptions gives a writer that says what is wrong.
func NewWriterOptions(io.Writer, WriterOptions) *Writer { return &Writer{} }

// Write implements io.Writer.
func (*Writer) Write([]byte) (int, error) { return 0, ErrUnsupported }

// Close is the library's.
func (*Writer) Close() error { return nil }

// Reset is the library's.
func (*Writer) Reset(io.Writer) {}
