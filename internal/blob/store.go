package blob

import (
	"context"
	"sync"
	"time"

	"tategu/internal/store"
)

// Kinds of rows.
const (
	kindBucket  store.Kind = "bucket"        // key: name; parent: projects/P
	kindObject  store.Kind = "object"        // key: BUCKET/NAME, in bytewise order of names; state: content id
	kindVersion store.Kind = "objectVersion" // key: generationKey; state: content id
	kindSoft    store.Kind = "objectSoft"    // key: generationKey; state: content id
	kindFloor   store.Kind = "objectFloor"   // key: bucket; the greatest generation that was ever deleted in it
	kindUpload  store.Kind = "upload"        // key: upload id; state: content id
	kindEvent   store.Kind = "bucketEvent"   // key: see eventKey; state: PENDING

	kindMultipart     store.Kind = "multipart"     // key: BUCKET/NAME, NUL, upload id; unfinished
	kindMultipartDone store.Kind = "multipartDone" // the same key, after its end
	kindPart          store.Kind = "uploadPart"    // key: upload id/number; state: content id
)

// contentKinds are the kinds of rows whose state is the id of a content.
func contentKinds() []store.Kind {
	return []store.Kind{kindObject, kindVersion, kindSoft, kindUpload, kindPart, KindImageBlob, KindImageUpload, KindVectorSegment}
}

// Store keeps buckets and objects: rows in a store, bytes in a Content.
type Store struct {
	rows    store.Store
	content contents
	now     func() time.Time
	locks   keyLock // appends to one log or upload, one at a time
	held    holds   // while a backup runs
}

// New makes a Store over rows and content.
func New(rows store.Store, content Content, now func() time.Time) *Store {
	return &Store{rows: rows, content: contents{Content: content, rows: rows}, now: now, locks: keyLock{held: map[string]*waiting{}}}
}

// keyLock is a lock a key that can be waited for with a context.
type keyLock struct {
	mu   sync.Mutex
	held map[string]*waiting
}

type waiting struct {
	slot  chan struct{} // holds one token while locked
	users int
}

func (l *keyLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	w := l.held[key]
	if w == nil {
		w = &waiting{slot: make(chan struct{}, 1)}
		l.held[key] = w
	}
	w.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if w.users--; w.users == 0 {
			delete(l.held, key)
		}
	}
	select {
	case w.slot <- struct{}{}:
		return func() { <-w.slot; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}
