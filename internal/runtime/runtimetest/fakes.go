package runtimetest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc/codes"

	"tategu/internal/identity"
	"tategu/internal/resource"
)

// Files keeps objects in memory and remembers what was uploaded, in order.
type Files struct {
	mu      sync.Mutex
	objects map[string]string // by gs:// URI
	uploads []string
	fail    error
	denied  []denial
}

// NewFiles holds the given objects.
func NewFiles(objects map[string]string) *Files { return &Files{objects: objects} }

// Fail makes every upload from now on end with err.
func (f *Files) Fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = err
}

// Download implements runtime.Files.
func (f *Files) Download(_ context.Context, as identity.Account, uri, dir string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.rights(as, "read", uri); err != nil {
		return err
	}
	for name, content := range f.objects {
		if name != uri && !strings.HasPrefix(name, strings.TrimSuffix(uri, "/")+"/") {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(name, "gs://")))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// UploadFile implements runtime.Files.
func (f *Files) UploadFile(_ context.Context, as identity.Account, path, uri string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.rights(as, "write", uri); err != nil {
		return err
	}
	if f.fail != nil {
		return f.fail
	}
	f.objects[uri] = string(b)
	f.uploads = append(f.uploads, uri)
	return nil
}

// MayWrite implements runtime.Files.
func (f *Files) MayWrite(_ context.Context, as identity.Account, uri string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.rights(as, "write", uri)
}

// Deny makes the account unable to "read" or "write" what begins with prefix.
func (f *Files) Deny(as identity.Account, what, prefix string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = append(f.denied, denial{as, what, prefix})
}

type denial struct {
	as           identity.Account
	what, prefix string
}

// rights refuses what Deny named. The caller holds the lock.
func (f *Files) rights(as identity.Account, what, uri string) error {
	for _, d := range f.denied {
		if d.as == as && d.what == what && strings.HasPrefix(uri, d.prefix) {
			e := resource.Errorf(codes.PermissionDenied, "%s may not %s %s", as.Email, what, uri).WithCause(resource.CauseInput)
			e.Reason = resource.ReasonDenied
			return e
		}
	}
	return nil
}

// Uploads gives what was uploaded, in order.
func (f *Files) Uploads() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.uploads)
}

// Content gives an object, "" when there is none.
func (f *Files) Content(uri string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.objects[uri]
}

// Logs is a sink that insists on offsets without gaps, and takes what it has
// again. Text and Await want the workload's id.
type Logs struct {
	mu      sync.Mutex
	streams map[string][]byte
	changed chan struct{}
}

// NewLogs makes an empty sink.
func NewLogs() *Logs { return &Logs{streams: map[string][]byte{}, changed: make(chan struct{})} }

// AppendLog implements runtime.LogSink.
func (l *Logs) AppendLog(_ context.Context, stream string, offset int64, p []byte) error {
	_, stream, named := strings.Cut(stream, "|")
	if !named {
		return fmt.Errorf("log %q: not a name that runtime.LogStream makes", stream)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	have := l.streams[stream]
	if offset > int64(len(have)) {
		return fmt.Errorf("log %s: a gap: got offset %d, have %d bytes", stream, offset, len(have))
	}
	if end := offset + int64(len(p)); end > int64(len(have)) {
		l.streams[stream] = append(have[:offset:offset], p...)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// Text gives the output of a workload.
func (l *Logs) Text(id string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.streams[id])
}

// Await waits until the output of a workload contains text.
func (l *Logs) Await(ctx context.Context, id, text string) error {
	for {
		l.mu.Lock()
		have, changed := string(l.streams[id]), l.changed
		l.mu.Unlock()
		if strings.Contains(have, text) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("log %s has no %q: %q", id, text, have)
		case <-changed:
		}
	}
}

// Credentials hands out one variable and counts what is open.
type Credentials struct {
	open atomic.Int64
	all  atomic.Int64
}

// Open implements runtime.Credentials.
func (c *Credentials) Open(_ context.Context, id, project, serviceAccount string) (map[string]string, func(), error) {
	if project == "refused" {
		return nil, nil, errors.New("no such project")
	}
	c.open.Add(1)
	c.all.Add(1)
	return map[string]string{"TEST_CREDENTIAL": id + "/" + project + "/" + serviceAccount}, func() { c.open.Add(-1) }, nil
}

// Counts gives how many are open, and how many ever were.
func (c *Credentials) Counts() (open, all int64) { return c.open.Load(), c.all.Load() }
