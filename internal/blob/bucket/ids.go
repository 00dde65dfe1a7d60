package bucket

import (
	"context"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

const (
	// atOnce bounds the requests that one call has in flight.
	atOnce = 8
	// maxTries bounds how often a reader looks for segments that a merge replaced.
	maxTries = 8
	// knownChains bounds the chains that are remembered.
	knownChains = 4096
)

// ids is what this process knows of contents, besides what the bucket knows.
type ids struct {
	mu       sync.Mutex
	held     map[string]*waiting // who changes a content, one at a time
	chains   map[string]chain    // as the bucket would list them
	fills    map[string]*pending // lists under way that become chains unless the content changes
	readers  map[string]int
	dead     map[string]bool // removed, though its segments are not all gone
	sequence int64
}

// pending is told from others by its address, so it must not be empty.
type pending struct{ _ byte }

type waiting struct {
	slot  chan struct{} // holds one token while locked
	users int
}

func newIDs() ids {
	return ids{held: map[string]*waiting{}, chains: map[string]chain{}, fills: map[string]*pending{}, readers: map[string]int{}, dead: map[string]bool{}}
}

// lock waits until nobody else changes id.
func (s *ids) lock(ctx context.Context, id string) (unlock func(), err error) {
	s.mu.Lock()
	w := s.held[id]
	if w == nil {
		w = &waiting{slot: make(chan struct{}, 1)}
		s.held[id] = w
	}
	w.users++
	s.mu.Unlock()
	leave := func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.fills, id)
		if w.users--; w.users == 0 {
			delete(s.held, id)
		}
	}
	select {
	case w.slot <- struct{}{}:
		s.mu.Lock()
		delete(s.fills, id)
		s.mu.Unlock()
		return func() { leave(); <-w.slot }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

// next gives a sequence greater than last and than all this process gave before.
func (s *ids) next(now time.Time, last int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sequence = max(now.UnixNano(), last+1, s.sequence+1)
	return s.sequence
}

// chain gives what is remembered of id, or nil.
func (s *ids) chain(id string) chain {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chains[id]
}

// remember sets the chain; the caller holds the lock of id.
func (s *ids) remember(id string, c chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.store(id, c)
}

func (s *ids) store(id string, c chain) {
	if len(s.chains) >= knownChains {
		for other := range s.chains { // any one: a list finds it again
			delete(s.chains, other)
			break
		}
	}
	s.chains[id] = c
}

// forget makes the next look at id a list.
func (s *ids) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.chains, id)
	delete(s.fills, id)
}

// startFill is called before a list by one that does not hold the lock of id.
func (s *ids) startFill(id string) *pending {
	s.mu.Lock()
	defer s.mu.Unlock()
	fill := s.fills[id]
	if w := s.held[id]; fill == nil && (w == nil || len(w.slot) == 0) {
		s.fills[id] = fill
	}
	return fill
}

// endFill remembers what was listed, unless id was changed since startFill.
func (s *ids) endFill(id string, f *pending, c chain) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f != nil && s.fills[id] == f {
		delete(s.fills, id)
		s.store(id, c)
	}
}

// enter counts a reader of id.
func (s *ids) enter(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead[id] {
		return fmt.Errorf("content %s: %w", id, fs.ErrNotExist)
	}
	s.readers[id]++
	return nil
}

// leave ends what enter began, and says whether a removal waits for it.
func (s *ids) leave(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readers[id]--; s.readers[id] > 0 {
		return false
	}
	delete(s.readers, id)
	return s.dead[id]
}

func (s *ids) read(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.readers[id] > 0
}

// doom hides id from new readers, and says whether there are some.
func (s *ids) doom(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead[id] = true
	return s.readers[id] > 0
}

func (s *ids) doomed(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dead[id]
}

// revive ends doom.
func (s *ids) revive(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.dead, id)
}
