package serving

import (
	"context"
	"time"
)

// Explaining is one request for explanations, for which a model is asked once or twice:
// for these, and for the predictions that they explain. It is counted and logged once, by
// Done. The zero value has asked nothing; it is for one goroutine at a time.
type Explaining struct {
	begin time.Time
	first outcome // what it is told as, but for how it ended
	last  outcome
}

// explained takes how a part of the request ended. Without an x, the request is its only
// part.
func (x *Explaining) explained(ctx context.Context, o outcome) {
	if x == nil {
		o.d.explained(ctx, o)
		return
	}
	if x.first.d != o.d { // of no model yet; or a canary failed, and counts as such
		x.Done(ctx)
		x.begin, x.first = time.Now().Add(-o.took), o
	}
	x.last = o
}

// Done counts and logs the request, where it came to a model.
func (x *Explaining) Done(ctx context.Context) {
	if x.first.d == nil {
		return
	}
	o := x.last
	o.ask, o.took = x.first.ask, time.Since(x.begin)
	x.first = outcome{}
	o.d.explained(ctx, o)
}

// explained counts and logs a request for explanations.
func (d *deployment) explained(ctx context.Context, o outcome) {
	d.meters.explained(statusOf(o), o.took)
	d.accessed(ctx, o)
}
