package torchserve

import (
	"errors"
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
