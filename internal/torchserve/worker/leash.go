package worker

import "sync"

// leash is what we hold of a forked worker beside its connection. Of each request it
// takes a permit before it begins, which we can take back: then it passes the request
// over, though it is in its socket, and says so. A page says how many threads torch is
// to have from the next request on.
type leash struct {
	mu      sync.Mutex
	closed  bool
	page    int // memory of one byte
	permits int // a semaphore that both of us can take from
	word    [8]byte
}

// PassedOver is the code of the answer to a request whose permit was taken back. It has
// no items, as no answer of the package's has.
const PassedOver = 299

// SetThreads has torch use n threads from the worker's next request on, unless its
// handler has changed their number itself. false = the worker keeps those that it was
// started with.
func (p *Process) SetThreads(n int) bool {
	return p.leash != nil && p.leash.setThreads(n) == nil
}
