package console

import (
	"context"
	"errors"
	"sync"
	"time"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// feeds are the runs that are looked at.
type feeds struct {
	rows  Rows
	waits func(workload string) bool
	log   func(ctx context.Context, err error)

	mu     sync.Mutex
	open   map[string]*held
	closed bool
	wg     sync.WaitGroup
}

// held is a feed with those that use it.
type held struct {
	*feed
	users int
	stop  context.CancelFunc
	drop  *time.Timer   // of one that nobody uses
	ready chan struct{} // closed once it is read
	err   error         // then: why it could not be
}

// A page is read, then its changes are asked for: in between its feed is kept.
const (
	feedKept  = 10 * time.Second
	mostFeeds = 64 // kept without users
)

// get gives the feed of a run, which the caller may read. It is to be given back.
func (fs *feeds) get(ctx context.Context, name string) (*feed, func(), error) {
	h, err := fs.hold(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	var once sync.Once
	give := func() { once.Do(func() { fs.give(h) }) }
	select {
	case <-h.ready:
	case <-ctx.Done():
		give()
		return nil, nil, ctx.Err()
	}
	if h.err != nil {
		give()
		return nil, nil, h.err
	}
	return h.feed, give, nil
}

func (fs *feeds) hold(ctx context.Context, name string) (*held, error) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if fs.closed {
		return nil, goingDown()
	}
	h := fs.open[name]
	if h == nil {
		ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // it serves others too
		h = &held{feed: newFeed(name, fs.rows), stop: stop, ready: make(chan struct{})}
		fs.open[name] = h
		fs.wg.Go(func() { fs.keep(ctx, h) })
	}
	if h.drop != nil {
		h.drop.Stop()
		h.drop = nil
	}
	h.users++
	return h, nil
}

// keep reads a run and follows it until nobody looks, or it is deleted.
func (fs *feeds) keep(ctx context.Context, h *held) {
	w := fs.rows.Watch(pipeline.KindTasks, resource.KindPipelineJobs) // first: no change is missed
	defer w.Close()
	h.err = h.load(ctx, fs.waits)
	err := h.err
	close(h.ready)
	if err == nil {
		err = h.follow(ctx, w, fs.waits)
	}
	fs.mu.Lock()
	fs.end(h)
	fs.mu.Unlock()
	h.finish()
	if err != nil && ctx.Err() == nil && !resource.IsNotFound(err) && !errors.Is(err, store.ErrClosed) {
		fs.log(ctx, err)
	}
}

func (fs *feeds) give(h *held) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	if h.users--; h.users > 0 {
		return
	}
	idle := 0
	for _, other := range fs.open {
		if other.users == 0 {
			idle++
		}
	}
	if fs.closed || idle > mostFeeds {
		fs.end(h)
		return
	}
	h.drop = time.AfterFunc(feedKept, func() {
		fs.mu.Lock()
		defer fs.mu.Unlock()
		if h.users == 0 {
			fs.end(h)
		}
	})
}

// end stops a feed; the next page of its run reads it anew. The caller has the lock.
func (fs *feeds) end(h *held) {
	if fs.open[h.name] == h {
		delete(fs.open, h.name)
	}
	h.stop()
}

// close ends every feed, and waits for that.
func (fs *feeds) close() {
	fs.mu.Lock()
	fs.closed = true
	for _, h := range fs.open {
		if h.drop != nil {
			h.drop.Stop()
		}
		fs.end(h)
	}
	fs.mu.Unlock()
	fs.wg.Wait()
}
