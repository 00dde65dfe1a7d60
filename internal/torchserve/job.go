package torchserve

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"tategu/internal/torchserve/worker"
)

// maxBacklog is how many bytes of answers wait for a client that is slow to take them.
const maxBacklog = 64 << 20

// job is a request on its way through a worker.
type job struct {
	req     worker.Request
	alone   bool   // it is no part of a batch
	label   string // the version as it was asked for, "default" = none was: of metrics
	arrived time.Time
	expires time.Time // zero = never: nobody wants its answer after that

	mu      sync.Mutex
	started time.Time // taken by a worker
	frames  []Frame
	backlog int
	ended   bool // no frame comes any more
	left    bool // nobody takes them any more
	err     error
	wake    chan struct{} // of one place
}

func newJob(r Request) *job {
	j := &job{arrived: time.Now(), alone: decides(r.Headers), label: "default", wake: make(chan struct{}, 1), req: worker.Request{ID: r.ID, Headers: r.Headers, Parts: r.Parts}}
	if j.req.ID == "" {
		j.req.ID = newID()
	}
	return j
}

// decides reports a request that asks for an explanation or a description. Handlers look
// at the first request of a batch for that: it would decide for all others.
func decides(headers []worker.Pair) bool {
	var explain, describe bool
	for _, h := range headers { // the last of a name counts
		switch h.Name {
		case "explain":
			explain = h.Value == "True"
		case "describe":
			describe = h.Value == "True"
		}
	}
	return explain || describe
}

// newID makes an id of the form that handlers know: a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (j *job) notify() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// frame hands an answer over.
func (j *job) frame(f Frame) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.ended || j.left {
		return
	}
	j.frames, j.backlog, j.ended = append(j.frames, f), j.backlog+len(f.Body), !f.More
	if j.backlog > maxBacklog {
		j.frames, j.ended = nil, true
		j.err = errorf(http.StatusInternalServerError, InternalServer, "the client takes the answer too slowly: %d bytes of it wait", j.backlog)
	}
	j.notify()
}

// fail ends the job without, or in the middle of, an answer.
func (j *job) fail(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.ended {
		j.ended, j.err = true, err
		j.notify()
	}
}

func (j *job) isEnded() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.ended
}

// begin marks it as taken by a worker; false = nobody waits for it any more.
func (j *job) begin(now time.Time) bool {
	if !j.expires.IsZero() && now.After(j.expires) {
		j.fail(errorf(http.StatusRequestTimeout, RequestTimeout, "the request waited longer than the model's clientTimeoutInMills"))
		return false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.left || j.ended {
		return false
	}
	j.started = now
	return true
}

// underway notes that the worker is at it now.
func (j *job) underway(now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.started = now
}

// size is about how many bytes it is on its way to a worker.
func (j *job) size() int {
	n := 64
	for _, h := range j.req.Headers {
		n += 8 + len(h.Name) + len(h.Value)
	}
	for _, p := range j.req.Parts {
		n += 12 + len(p.Name) + len(p.ContentType) + len(p.Value)
	}
	return n
}

// leave has the rest of the answer dropped.
func (j *job) leave() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.left, j.frames = true, nil
}

func (j *job) hasLeft() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.left
}

// next waits for frames; none = the end.
func (j *job) next(ctx context.Context) ([]Frame, error) {
	for {
		j.mu.Lock()
		frames, ended, err := j.frames, j.ended, j.err
		j.frames, j.backlog = nil, 0
		j.mu.Unlock()
		if len(frames) > 0 || ended {
			if len(frames) > 0 {
				err = nil // it comes after them
			}
			return frames, err
		}
		select {
		case <-j.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// frameOf turns a worker's answer into one for the client.
func frameOf(it *worker.Item, more bool) Frame {
	return Frame{Status: it.Status, Reason: it.Reason, ContentType: it.ContentType, Headers: it.Headers, Body: it.Body, More: more}
}

// streams says whether frames follow this one.
func streams(it *worker.Item) bool {
	for _, h := range it.Headers {
		if h.Name == worker.StreamNext {
			return strings.EqualFold(h.Value, "true")
		}
	}
	return false
}
