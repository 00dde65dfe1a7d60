// Package store is the port for state: rows with a kind and a key, an
// append-only event list per subject, and a watch on what changed. It knows
// nothing of what the rows mean. Adapters are children (sqlite); storetest is
// the contract they all pass.
//
// A write is durable when Update returns: it survives kill -9 and power loss. One of
// UpdateSoon survives kill -9, and power loss once a later Update has returned.
// No lock error ever reaches a caller; writers queue.
package store

import (
	"context"
	"time"
)

// Kind names a table of rows, such as "model", "task" or "object".
type Kind string

// Row is one record. Kind and Key identify it; Key gives the order of lists.
type Row struct {
	Kind   Kind
	Key    string // full resource name, or any text; compared bytewise
	Parent string // indexed; "" when unused
	State  string // indexed; engines look up unfinished work by it
	Data   []byte // usually a marshalled protobuf message

	Revision int64     // set by the store: grows with every commit
	Created  time.Time // set by the store on the first Put
	Updated  time.Time // set by the store on each Put
}

// Order of a list.
type Order int

// List orders.
const (
	ByKey     Order = iota // ascending bytewise key
	ByCreated              // oldest first, then key
	ByNewest               // newest first, then key descending
)

// Query selects rows of one kind. The zero values of fields select nothing away.
type Query struct {
	Kind   Kind
	Parent string   // exact parent
	Prefix string   // key prefix
	After  string   // ByKey only: keys strictly greater than this
	From   string   // ByKey only: keys greater than or equal to this
	Beyond *Row     // ByCreated and ByNewest only: continue after this row, of which Created and Key are read
	States []string // any of these
	Order  Order
	Offset int // rows to skip
	Limit  int // 0 = no limit
}

// Event is one line of a subject's history; Seq starts at 1 and has no gaps.
type Event struct {
	Subject string
	Seq     int64
	Time    time.Time
	Type    string
	Data    []byte
}

// Reader reads committed rows, or inside Update the transaction's own view.
type Reader interface {
	// Get gives one row, or a NotFound error (resource.IsNotFound).
	Get(ctx context.Context, kind Kind, key string) (Row, error)
	List(ctx context.Context, q Query) ([]Row, error)
	// Events gives up to limit events of subject with Seq > after, in order; limit 0 = all.
	Events(ctx context.Context, subject string, after int64, limit int) ([]Event, error)
}

// Tx writes. Nothing of it is seen by others before Update returns nil.
type Tx interface {
	Reader
	// Put inserts or replaces; Revision, Created and Updated are filled by the store.
	Put(ctx context.Context, row Row) error
	// Delete removes a row; a missing row is not an error.
	Delete(ctx context.Context, kind Kind, key string) error
	// Append adds an event to subject's history.
	Append(ctx context.Context, subject, typ string, data []byte) error
}

// Change says that a row was written or removed.
type Change struct {
	Kind    Kind
	Key     string
	Deleted bool
}

// Watcher delivers changes of some kinds. Changes of one key coalesce, so a slow
// reader costs no memory beyond one entry a key and never loses the last change.
type Watcher interface {
	// Next waits for changes; it returns at least one, or ctx's error, or
	// ErrClosed once the watcher or store is closed.
	Next(ctx context.Context) ([]Change, error)
	Close()
}

// Store is the port.
type Store interface {
	Reader
	// Update runs fn in one transaction and returns once it is durable. Several
	// callers share one commit. fn must not call Update, must not block on other
	// goroutines, and is run once; if it returns an error nothing is written.
	Update(ctx context.Context, fn func(tx Tx) error) error
	// UpdateSoon is Update for what a later Update confirms: it does not wait for the
	// disk. Writes become durable in the order in which they were made, so that none is
	// lost whose successor is there.
	UpdateSoon(ctx context.Context, fn func(tx Tx) error) error
	// Watch starts with changes committed after it returns; no kinds = all.
	Watch(kinds ...Kind) Watcher
	Close() error
}
