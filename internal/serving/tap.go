package serving

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// Bounds of what is copied of requests and answers, for shadows and logs. What does
// not fit is counted and left out: no caller waits for a copy.
const (
	copyBytes   = 1 << 20  // of one answer
	copiesBytes = 64 << 20 // of all that are kept at a time
	copiesQueue = 1024     // that wait for one consumer
)

// exchange is a request and its whole answer.
type exchange struct {
	at                *entry
	id                string      // of the deployed model that answered
	header            http.Header // of the request; for a shadow alone: it may hold what no log should
	request, response []byte
	status            int
	when              time.Time
	took              time.Duration // until the answer began
	explains          bool

	budget *budget
	uses   atomic.Int32
}

// done gives the room back when nobody uses the copy any more.
func (x *exchange) done() {
	if x.uses.Add(-1) == 0 {
		x.budget.release(len(x.request) + len(x.response))
	}
}

// again is the request as a shadow gets it.
func (x *exchange) again() Request { return Request{Header: x.header, Body: x.request, Again: true} }

// budget bounds the bytes of copies.
type budget struct{ used atomic.Int64 }

func (b *budget) reserve(n int) bool {
	if b.used.Add(int64(n)) > copiesBytes {
		b.used.Add(int64(-n))
		return false
	}
	return true
}

func (b *budget) release(n int) { b.used.Add(int64(-n)) }

// tap copies what is read of an answer.
type tap struct {
	io.ReadCloser

	x     *exchange
	whole bool
	over  bool // it is too large
	given func(x *exchange, ok bool)
}

func (t *tap) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if n > 0 && !t.over {
		if len(t.x.response)+n > copyBytes || !t.x.budget.reserve(n) {
			t.over = true
		} else {
			t.x.response = append(t.x.response, p[:n]...)
		}
	}
	if err == io.EOF {
		t.whole = true
	}
	return n, err
}

func (t *tap) Close() error {
	err := t.ReadCloser.Close()
	if t.given != nil {
		t.given(t.x, t.whole && !t.over)
		t.given = nil
	}
	return err
}

// tapped has an answer copied for those who want it of this endpoint. A request for
// explanations is logged, but its predictions, for which the model is asked again, are not. The error
// is that of a body that broke off.
func (e *Engine) tapped(at *entry, r Request, resp *Response, took time.Duration) error {
	shadowed := at.shadow != nil && r.Again && r.Route == "" && !r.Stream && !r.Explain && r.DeployedModel == "" && e.sampled(at.shadow.rate)
	logged := at.journal != nil && (r.Explain || r.Part == nil) && e.sampled(at.journal.rate)
	if !shadowed && !logged {
		return nil
	}
	if err := r.whole(); err != nil {
		return errors.Join(err, resp.Body.Close())
	}
	x := &exchange{
		at: at, id: resp.DeployedModel, header: r.Header, status: resp.Status, when: e.cfg.Now(), took: took, explains: r.Explain, budget: &e.copies,
	}
	x.uses.Store(1)
	if !x.budget.reserve(len(r.Body)) {
		e.missed(at, shadowed, logged)
		return nil
	}
	x.request = bytes.Clone(r.Body) // its memory is used again once it is answered
	resp.Body = &tap{ReadCloser: resp.Body, x: x, given: func(x *exchange, ok bool) {
		defer x.done()
		if !ok {
			e.missed(at, shadowed, logged)
			return
		}
		if shadowed {
			e.hand(e.shadowed, x, func() { e.missed(at, true, false) })
		}
		if logged {
			e.hand(e.journaled, x, func() { e.missed(at, false, true) })
		}
	}}
	return nil
}

func (e *Engine) hand(to chan<- *exchange, x *exchange, full func()) {
	x.uses.Add(1)
	select {
	case to <- x:
	default:
		x.done()
		full()
	}
}

func (e *Engine) missed(at *entry, shadowed, logged bool) {
	if shadowed {
		e.dropShadow(at)
	}
	if logged {
		e.metrics.unlogged(at.endpoint.GetName())
	}
}

// sampled draws by a rate from 0 to 1.
func (e *Engine) sampled(rate float64) bool {
	const fine = 1_000_000
	return rate >= 1 || e.cfg.Random(fine) < int(rate*fine)
}
