package bucket

import (
	"context"
	"errors"
	"sync"

	gcblob "gocloud.dev/blob"
	"gocloud.dev/blob/driver"
	"gocloud.dev/gcerrors"
)

var errKilled = errors.New("killed")

// faulty is a driver over a bucket that stops for good at one change, as a killed
// process does: before it or just after it.
type faulty struct {
	under *gcblob.Bucket

	mu    sync.Mutex
	left  int  // changes until it stops; -1 = never
	after bool // the last change is made, though nobody learns it
	dead  bool
	made  int // changes
}

// change runs one change, or not.
func (f *faulty) change(do func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errKilled
	}
	f.made++
	if f.left--; f.left != -1 {
		return do()
	}
	f.dead = true
	if f.after {
		return errors.Join(errKilled, do())
	}
	return errKilled
}

// recover makes a stop that was a failure of the service end.
func (f *faulty) recover() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dead, f.left = false, -1
}

func (f *faulty) alive() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dead {
		return errKilled
	}
	return nil
}

func (f *faulty) ErrorCode(err error) gcerrors.ErrorCode { return gcerrors.Code(err) }
func (f *faulty) As(any) bool                            { return false }
func (f *faulty) ErrorAs(error, any) bool                { return false }
func (f *faulty) Close() error                           { return nil }

func (f *faulty) Attributes(ctx context.Context, key string) (*driver.Attributes, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	a, err := f.under.Attributes(ctx, key)
	if err != nil {
		return nil, err
	}
	return &driver.Attributes{ModTime: a.ModTime, Size: a.Size}, nil
}

func (f *faulty) ListPaged(ctx context.Context, opts *driver.ListOptions) (*driver.ListPage, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	token := opts.PageToken
	if len(token) == 0 {
		token = gcblob.FirstPageToken
	}
	objects, next, err := f.under.ListPage(ctx, token, max(opts.PageSize, 1), &gcblob.ListOptions{Prefix: opts.Prefix})
	page := &driver.ListPage{NextPageToken: next}
	for _, o := range objects {
		page.Objects = append(page.Objects, &driver.ListObject{Key: o.Key, ModTime: o.ModTime, Size: o.Size})
	}
	return page, err
}

type faultyReader struct{ *gcblob.Reader }

func (r faultyReader) Attributes() *driver.ReaderAttributes {
	return &driver.ReaderAttributes{ModTime: r.ModTime(), Size: r.Size()}
}

func (r faultyReader) As(any) bool { return false }

func (f *faulty) NewRangeReader(ctx context.Context, key string, offset, length int64, _ *driver.ReaderOptions) (driver.Reader, error) {
	if err := f.alive(); err != nil {
		return nil, err
	}
	r, err := f.under.NewRangeReader(ctx, key, offset, length, nil)
	if err != nil {
		return nil, err
	}
	return faultyReader{r}, nil
}

type faultyWriter struct {
	*gcblob.Writer
	f      *faulty
	cancel func()
}

func (w faultyWriter) Close() error {
	defer w.cancel()
	err := w.f.change(w.Writer.Close)
	if errors.Is(err, errKilled) {
		w.cancel()
		_ = w.Writer.Close() // gives up the memory; it is closed already when the change was made
	}
	return err
}

func (f *faulty) NewTypedWriter(ctx context.Context, key, contentType string, opts *driver.WriterOptions) (driver.Writer, error) {
	ctx, cancel := context.WithCancel(ctx)
	w, err := f.under.NewWriter(ctx, key, &gcblob.WriterOptions{ContentType: contentType, IfNotExist: opts.IfNotExist})
	if err != nil {
		cancel()
		return nil, err
	}
	return faultyWriter{Writer: w, f: f, cancel: cancel}, nil
}

func (f *faulty) Copy(ctx context.Context, to, from string, _ *driver.CopyOptions) error {
	return f.change(func() error { return f.under.Copy(ctx, to, from, nil) })
}

func (f *faulty) Delete(ctx context.Context, key string, _ *driver.DeleteOptions) error {
	return f.change(func() error { return f.under.Delete(ctx, key) })
}

func (f *faulty) SignedURL(context.Context, string, *driver.SignedURLOptions) (string, error) {
	return "", errors.ErrUnsupported
}
