package torchserve

import "tategu/internal/torchserve/worker"

// Pair is a header, or a metric's dimension.
type Pair = worker.Pair

// Part is one input of a request: a body is the part "body"; forms and query strings
// give one a field.
type Part = worker.Part

// Request is what a handler is given. Headers are passed on as they are; the engine
// adds none.
type Request struct {
	ID      string // the handler's request id; "" = the engine makes one
	Headers []Pair
	Parts   []Part
}

// Frame is an answer, or a piece of a streamed one. Status, Reason, ContentType and
// Headers are those of the first frame in a stream.
type Frame struct {
	Status      int // of HTTP
	Reason      string
	ContentType string
	Headers     []Pair
	Body        []byte
	More        bool // frames follow
}
