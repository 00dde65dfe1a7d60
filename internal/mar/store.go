package mar

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
)

// Objects reads objects by their URI (gs://BUCKET/NAME); a missing one is an error
// that resource.IsNotFound knows.
type Objects interface {
	OpenURI(ctx context.Context, uri string) (io.ReadCloser, error)
}

// Store opens archives and keeps their unpacked files below a folder of its own.
type Store struct {
	Models    string         // folder of archives that are named without a scheme; "" = there is none
	Workflows string         // the same of workflows; "" = Models
	Work      string         // archives are unpacked below it
	Allowed   *regexp.Regexp // URLs that may be fetched; nil = every one
	Objects   Objects        // nil = gs:// and s3:// are refused
	HTTP      *http.Client   // nil = http(s):// is refused
	Limits    Limits
}

// Limits of what an archive may unpack to; zero values are the defaults.
type Limits struct {
	Bytes   int64 // of all files: 64 GiB
	Entries int   // files and folders: 100,000
	Ratio   int64 // unpacked to packed bytes, beyond the first 64 MiB: 1000
}

// Open fetches and unpacks a model archive.
func (s *Store) Open(ctx context.Context, url string) (*Archive, error) {
	return nil, errors.New("not yet")
}

// OpenWorkflow fetches and unpacks a workflow archive.
func (s *Store) OpenWorkflow(ctx context.Context, url string) (*Workflow, error) {
	return nil, errors.New("not yet")
}
