// Package blob is the port for objects: buckets, named objects with generations,
// ranges and preconditions, and log streams. Rows (names, generations, hashes)
// live in the store; bytes live behind the Content port, whose adapters are
// children (disk). Object names are never file paths.
package blob

import (
	"context"
	"io"
	"time"
)

// Conditions are the preconditions of a request; nil fields are not checked.
// GenerationMatch 0 means "no live object". A condition that does not hold gives
// FailedPrecondition (HTTP 412), or for reads with *NotMatch ErrNotModified (304).
type Conditions struct {
	GenerationMatch, GenerationNotMatch         *int64
	MetagenerationMatch, MetagenerationNotMatch *int64
	// MD5 and CRC32C are what the written bytes must hash to (InvalidArgument
	// otherwise); reads ignore them.
	MD5    []byte
	CRC32C *uint32
}

// Digest is what was learnt of a content while it was written.
type Digest struct {
	Size   int64
	MD5    []byte
	CRC32C uint32
}

// Content keeps byte strings under ids; memory use never depends on their size.
// What Create and Append report as written is durable when they return; what is
// appended to a log (LogPrefix) outlasts the process, and is left to the system to
// write to the disk. A missing
// id gives an error that is fs.ErrNotExist; no space left gives ResourceExhausted.
type Content interface {
	// Create streams r until EOF into a new byte string.
	Create(ctx context.Context, r io.Reader) (id string, d Digest, err error)
	// Append writes r at offset of the byte string id, which the caller chose
	// ([a-z0-9-]{8,80}) and which is made when it is missing; what was beyond offset
	// is dropped. n bytes are kept also when r fails.
	Append(ctx context.Context, id string, offset int64, r io.Reader) (n int64, err error)
	// Open reads from offset; length < 0 means to the end. Bytes already opened
	// stay readable after Remove.
	Open(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error)
	Size(ctx context.Context, id string) (int64, error)
	// Link makes a second id for the same bytes, each removed on its own.
	Link(ctx context.Context, id string) (string, error)
	// Remove deletes; a missing id is not an error.
	Remove(ctx context.Context, id string) error
	// Walk calls fn for every id with the time of its last write, in no order.
	Walk(ctx context.Context, fn func(id string, written time.Time) error) error
}
