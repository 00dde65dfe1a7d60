package torchserve

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

// TestIdler: workers that die with requests, or after a while, are no idlers.
func TestIdler(t *testing.T) {
	t.Parallel()
	w := &slot{ready: time.Now().Add(time.Hour)}
	if idle := errors.New("it ended"); !w.idler(&deadError{err: idle}) || w.idler(&deadError{err: &deathError{err: idle}}) {
		t.Error("what it had in its hands is not looked at")
	}
	w.ready = time.Now().Add(-shortLife)
	if w.idler(&deadError{err: errors.New("it ended")}) {
		t.Error("one that served for long is an idler")
	}
}

func TestThreads(t *testing.T) {
	t.Parallel()
	v := &version{slots: []*slot{{}}}
	if got, want := v.threads(), runtime.GOMAXPROCS(0); got != want {
		t.Errorf("the only worker has %d threads, want %d", got, want)
	}
	v.slots = make([]*slot, 2*runtime.GOMAXPROCS(0))
	if got := v.threads(); got != 1 {
		t.Errorf("each of many workers has %d threads", got)
	}
}
