// Package modelcache brings the files of registered models to this machine and
// keeps them: it asks a Registry which version a name stands for, downloads what is
// missing from Objects, checks every byte, and gives a directory that is there whole
// or not at all, until the name stands for another version. It knows a server by
// these two interfaces alone, and does not know what is in a model.
package modelcache

import (
	"context"
	"io"
	"iter"
	"time"
)

// Registry knows registered models.
type Registry interface {
	// Resolve gives the version that a name stands for now: MODEL, MODEL@VERSION or
	// MODEL@ALIAS, where MODEL is an id, a full name or a display name. A server that
	// does not answer is an error of code Unavailable.
	Resolve(ctx context.Context, name string) (Version, error)
}

// Version is one version of a registered model.
type Version struct {
	Model       string    `json:"model"` // full name, without @
	DisplayName string    `json:"display_name,omitempty"`
	ID          string    `json:"version"`
	Aliases     []string  `json:"aliases"`
	ArtifactURI string    `json:"artifact_uri"`
	Updated     time.Time `json:"updated"`
	// Etag is another one when anything of the version is.
	Etag string `json:"etag,omitempty"`
}

// Object is what storage says of a file.
type Object struct {
	Bucket, Name string
	Generation   int64
	Size         int64
	CRC32C, MD5  string // base64 of big-endian bytes; MD5 may be missing
}

// Objects is the storage that models are in.
type Objects interface {
	// List gives the live objects of a bucket whose names begin so, by name.
	List(ctx context.Context, bucket, prefix string) iter.Seq2[Object, error]
	// Download writes one generation of an object and checks it against its CRC32C;
	// count is told of bytes as they come.
	Download(ctx context.Context, o Object, w io.Writer, count func(int64)) error
}

// Progress is told what a pull does, by several goroutines at once.
type Progress interface {
	Found(size int64) // a file belongs to the model
	Planned()         // all files are known
	Add(n int64)      // bytes came
	Finished()        // a file came
	Skipped()         // a file was here already
}

// silent is the Progress of nobody.
type silent struct{}

func (silent) Found(int64) {}
func (silent) Planned()    {}
func (silent) Add(int64)   {}
func (silent) Finished()   {}
func (silent) Skipped()    {}
