package pipeline

import (
	"time"
)

// Events.
type (
	event interface{ event() }
	// began starts a fresh run, or goes on with one that was restored.
	began struct{}
	// looked answers a lookup; entry is nil on a miss.
	looked struct {
		path  string
		entry *cacheEntry
	}
	// ended tells how an attempt went.
	ended struct {
		path     string
		attempt  int
		workload string
		outcome  outcome
	}
	// due says that the pause before a retry is over.
	due struct{ path string }
	// grown goes on with a loop that has more iterations to start.
	grown struct{ path string }
	// found answers a find; name is "" where there is none.
	found struct{ path, name string }
	// cancel asks for the end of the run.
	cancel struct{}
)

func (began) event()  {}
func (looked) event() {}
func (ended) event()  {}
func (due) event()    {}
func (grown) event()  {}
func (found) event()  {}
func (cancel) event() {}

// Actions.
type (
	action interface{ action() }
	// lookup asks for a cache entry.
	lookup struct{ path, key string }
	// start asks for an attempt; repeating it does no harm.
	start struct {
		path    string
		attempt int
	}
	// stop ends the running attempt.
	stop struct{ path, workload string }
	// wake asks for a due event.
	wake struct {
		path string
		at   time.Time
	}
	// grow asks for a grown event once what was decided is durable.
	grow struct{ path string }
	// find asks for an artifact that exists.
	find struct {
		path string
		want Artifact
	}
)

func (lookup) action() {}
func (start) action()  {}
func (stop) action()   {}
func (wake) action()   {}
func (grow) action()   {}
func (find) action()   {}
