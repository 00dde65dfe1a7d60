// Package replica keeps one set of instances of a server: it starts them through
// the runtime port, probes their health route, restarts those that end with a
// growing delay, hands requests to them from one bounded queue, drains and stops
// them. A set can also be a function inside this process.
//
// It knows nothing of models, endpoints or jobs: engines decide what a set runs,
// how many and for how long. Replicas are not children of a set: when Run's
// context ends they go on, and a set of the same name finds them again.
package replica

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"tategu/internal/replica/http1"
	"tategu/internal/runtime"
)

// Upload is a body that is still coming.
type Upload = http1.Upload

// NewUpload makes one of size bytes, of which got has come already, in whose memory the
// rest may go; read gives the rest.
func NewUpload(got []byte, size int, read func(p []byte) (int, error)) *Upload {
	return http1.NewUpload(got, size, read)
}

// Request is what a replica is asked.
type Request struct {
	Method string
	Path   string // with query
	Header http.Header
	Body   []byte
	// Upload is in place of Body when that is still coming. It goes to a replica that is
	// free at once, else Do gives ErrUnread.
	Upload *Upload
	// Again allows that it is sent to another replica when the first one dies over
	// it. One that was not sent is always safe.
	Again bool
}

// Response is what it answered. Body must be closed; it may be a stream. Header must not
// be changed.
type Response struct {
	Status int
	Header http.Header
	Body   io.ReadCloser

	Waited time.Duration // for its turn
	Took   time.Duration // from its sending to the head of the answer
	Beside int           // requests that the replica had then, itself included
}

// Backend answers requests.
type Backend interface {
	Do(ctx context.Context, r *Request) (*Response, error)
}

// Config of a set. Either Local or Runtime and Workload are given.
type Config struct {
	Name        string // makes the workloads' ids: NAME-INDEX-ATTEMPT
	Attempt     int    // the number before the first attempt: no id may come twice, since output is kept by it
	Title       string // what error texts call it, such as "deployed model 5"
	Count       int    // replicas wanted
	Required    int    // so many of Count are enough for WaitReady; 0 = all
	Concurrency int    // requests in flight in one replica at most; 0 = 100
	Queue       int    // requests that may wait; 0 = 10000
	QueueBytes  int64  // bytes of requests that may wait; 0 = 64 MiB

	// Local answers inside this process; Count is then of no meaning.
	Local Backend

	Runtime  runtime.Runtime
	Workload func(id string) runtime.Workload
	Health   string        // route that answers 200 when a replica can serve
	Start    time.Duration // until the first such answer, at most; 0 = 15 minutes
	// Check looks at each program that was started once it is healthy, before it gets
	// requests. Its error is that of a start which another would not cure; nil = no check.
	Check func(ctx context.Context, b Backend) error
	// Prepare makes each program that is healthy for the first time, also one that ran
	// before this set, what it is to be before it gets requests; it is called again after
	// Each had an error. Its error is as that of Check. Nil = nothing is to be done.
	Prepare func(ctx context.Context, b Backend) error
	Drain   time.Duration // requests of a replica that goes may take so long; 0 = 30 s
	// Frames is the route of predictions of a program of ours, which may ask for many over
	// one connection (package frame); "" = it is another's. Headers do not reach it then.
	Frames string

	// Client reaches replicas; nil = a pool of plain HTTP/1.1 connections.
	Client Client

	Log *slog.Logger
}

// Workloads gives what the set runs when all its replicas are there.
func (c Config) Workloads() []runtime.Workload {
	out := make([]runtime.Workload, c.Count)
	for i := range out {
		out[i] = c.Workload(fmt.Sprintf("%s-%d-1", c.Name, i))
	}
	return out
}

// State of one replica.
type State string

// The states. A replica that is Unhealthy gets no requests but is left alone.
const (
	Starting  State = "STARTING"
	Ready     State = "READY"
	Unhealthy State = "UNHEALTHY"
	Waiting   State = "WAITING" // for its next start after a failure
	Failed    State = "FAILED"  // for good: it can never start
	Draining  State = "DRAINING"
)

// Status of one replica.
type Status struct {
	Index    int
	State    State
	Address  string
	InFlight int
	Failures int    // in a row without having been ready
	Message  string // the last failure, or what the runtime is doing
}

// Times of health probing and restarts. The route must answer within probeLimit
// and is dropped from rotation after unhealthyAfter bad answers, as on Vertex AI.
const (
	probeFirst     = 5 * time.Millisecond
	probeStarting  = 300 * time.Millisecond
	probeReady     = 10 * time.Second
	probeSuspect   = time.Second // after a connection that broke
	probeLimit     = 10 * time.Second
	unhealthyAfter = 4
	startLimit     = 15 * time.Minute
	restartFirst   = 500 * time.Millisecond
	restartMax     = time.Minute
	giveUpAfter    = 3 // failed starts in a row until callers are told
	stopGrace      = 10 * time.Second
	drainLimit     = 30 * time.Second
)

// idleConnections of a replica are kept at least: its limit may grow.
const idleConnections = 1000

// How often a request is sent anew when its replica dies.
const (
	unsentTries = 5
	sentTries   = 2
)

func (c Config) withDefaults() Config {
	if c.Concurrency == 0 {
		c.Concurrency = 100
	}
	if c.Queue == 0 {
		c.Queue = 10_000
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = 64 << 20
	}
	if c.Start == 0 {
		c.Start = startLimit
	}
	if c.Drain == 0 {
		c.Drain = drainLimit
	}
	return c
}
