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

// Object describes one generation of one object. Its bytes are Content.
type Object struct {
	Bucket, Name       string
	Generation         int64 // microseconds since 1970 at creation, unique and growing per object
	Metageneration     int64 // 1, grows with each metadata change
	Size               int64 // bytes
	ContentType        string
	ContentEncoding    string
	ContentDisposition string
	ContentLanguage    string
	CacheControl       string
	StorageClass       string
	Metadata           map[string]string // user metadata
	MD5                []byte            // 16 bytes; empty for composed objects
	CRC32C             uint32            // Castagnoli, of the whole content
	Created, Updated   time.Time
	CustomTime         time.Time // zero = unset
	Content            string    // id in the Content port
}

// Bucket is a namespace of objects.
type Bucket struct {
	Name, Project    string
	Location         string
	StorageClass     string
	Labels           map[string]string
	Metageneration   int64
	Created, Updated time.Time
	Policy           []byte // IAM policy as given, JSON; empty = default
	Extra            []byte // further bucket fields as given, JSON (lifecycle, cors, ...)
}

// Conditions are the preconditions of a request; nil fields are not checked.
// GenerationMatch 0 means "no live object". A condition that does not hold gives
// FailedPrecondition (HTTP 412), or for reads with *NotMatch ErrNotModified (304).
type Conditions struct {
	GenerationMatch, GenerationNotMatch         *int64
	MetagenerationMatch, MetagenerationNotMatch *int64
}

// ListQuery selects live objects of a bucket in bytewise order of their names.
type ListQuery struct {
	Prefix, Delimiter      string
	StartOffset, EndOffset string // names >= start, < end
	After                  string // names (or prefixes) strictly after this: the page token
	Limit                  int    // objects plus prefixes a page; 0 = 1000
}

// ListPage is one page; Next is "" on the last one.
type ListPage struct {
	Objects  []Object
	Prefixes []string
	Next     string
}

// Digest is what was learnt of a content while it was written.
type Digest struct {
	Size   int64
	MD5    []byte
	CRC32C uint32
}

// Content keeps immutable byte strings under ids it makes. A content is durable
// when Create returns (or a Draft's Commit).
type Content interface {
	// Create streams r until EOF; memory use does not depend on the size.
	Create(ctx context.Context, r io.Reader) (id string, d Digest, err error)
	// Open reads from offset; length < 0 means to the end.
	Open(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error)
	Remove(ctx context.Context, id string) error
}
