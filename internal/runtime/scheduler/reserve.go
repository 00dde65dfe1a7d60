package scheduler

import "math"

// Reserve counts memory that the runtime itself takes so that programs start
// sooner, until Release. It takes what is free and nobody waits for; false = there
// is not so much.
func (s *Scheduler) Reserve(id, owner string, memory int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	need := amount{memory: memory}
	if s.free.short(need).memory || s.holding[id] != nil || s.waitsFor(s.free.memory-memory, math.MaxInt64) {
		return false
	}
	s.seq++
	e := &entry{Ask: Ask{ID: id, Owner: owner, Project: owner, Created: s.now()}, need: need, seq: s.seq, done: make(chan struct{})}
	close(e.done)
	s.hold(e, Grant{})
	return true
}

// WouldHelp says that somebody waits for memory who would have enough with so many
// bytes more.
func (s *Scheduler) WouldHelp(memory int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waitsFor(s.free.memory, s.free.memory+memory)
}

// waitsFor says that an ask waits that needs more than few bytes and at most many.
func (s *Scheduler) waitsFor(few, many int64) bool {
	helps := func(need amount) bool { return need.memory > few && need.memory <= many }
	for c := range s.lines {
		if helps(c.need) {
			return true
		}
	}
	for _, members := range s.gangs {
		if _, _, need := s.gang(members[0]); helps(need) {
			return true
		}
	}
	return false
}
