package blob

import (
	"context"
	"sync"
)

// maxKept bounds what a hold remembers; Sweep finds the rest afterwards.
const maxKept = 100_000

// holds keeps contents that no row names any more while somebody reads them by an
// older view of the rows.
type holds struct {
	mu    sync.Mutex
	count int
	kept  []string
}

func (h *holds) any() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count > 0
}

// keep reports that the content id stays for now.
func (h *holds) keep(id string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count > 0 && len(h.kept) < maxKept {
		h.kept = append(h.kept, id)
	}
	return h.count > 0
}

// Hold keeps every content that rows name now, or will name, until release:
// whoever takes a view of the rows after Hold returned finds all contents of it.
// release, which may be called again, removes what is of no use any more.
func (s *Store) Hold(ctx context.Context) (release func()) {
	s.held.mu.Lock()
	s.held.count++
	s.held.mu.Unlock()
	return sync.OnceFunc(func() {
		s.held.mu.Lock()
		var kept []string
		if s.held.count--; s.held.count == 0 {
			kept, s.held.kept = s.held.kept, nil
		}
		s.held.mu.Unlock()
		for _, id := range kept {
			s.discard(ctx, id)
		}
	})
}
