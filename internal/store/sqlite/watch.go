package sqlite

import (
	"context"
	"slices"
	"sync"

	"tategu/internal/store"
)

// hub hands committed changes to watchers.
type hub struct {
	mu       sync.Mutex
	watchers map[*watcher]struct{}
	closed   bool
}

func (h *hub) add(kinds []store.Kind) *watcher {
	w := &watcher{hub: h, kinds: kinds, pending: map[store.Change]int{}, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers == nil {
		h.watchers = map[*watcher]struct{}{}
	}
	if h.closed {
		w.close()
	}
	h.watchers[w] = struct{}{}
	return w
}

func (h *hub) publish(changes []store.Change) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.offer(changes)
	}
}

func (h *hub) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for w := range h.watchers {
		w.close()
	}
}

// watcher implements store.Watcher. pending maps a row (Deleted left false) to
// its place in queue, so that a later change overwrites an earlier one.
type watcher struct {
	hub   *hub
	kinds []store.Kind

	mu      sync.Mutex
	pending map[store.Change]int
	queue   []store.Change
	wake    chan struct{}
	closed  chan struct{}
	once    sync.Once
}

func (w *watcher) offer(changes []store.Change) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range changes {
		if len(w.kinds) > 0 && !slices.Contains(w.kinds, c.Kind) {
			continue
		}
		id := store.Change{Kind: c.Kind, Key: c.Key}
		if i, ok := w.pending[id]; ok {
			w.queue[i] = c
			continue
		}
		w.pending[id] = len(w.queue)
		w.queue = append(w.queue, c)
	}
	if len(w.queue) > 0 {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) ([]store.Change, error) {
	for {
		w.mu.Lock()
		queue := w.queue
		w.queue, w.pending = nil, map[store.Change]int{}
		w.mu.Unlock()
		if len(queue) > 0 {
			return queue, nil
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-w.closed:
			return nil, store.ErrClosed
		}
	}
}

// Close implements store.Watcher.
func (w *watcher) Close() {
	w.hub.mu.Lock()
	delete(w.hub.watchers, w)
	w.hub.mu.Unlock()
	w.close()
}

func (w *watcher) close() { w.once.Do(func() { close(w.closed) }) }
