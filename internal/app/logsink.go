package app

import (
	"context"
	"sync"

	"tategu/internal/blob"
	"tategu/internal/store"
)

// kindLogs rows list the log streams that exist; the key is OWNER|WORKLOAD.
const kindLogs store.Kind = "logs"

// logSink keeps output in the object store and remembers whose it is, so that
// the logs of a resource are found after its programs are gone.
type logSink struct {
	blobs *blob.Store
	rows  store.Store

	mu    sync.Mutex
	known map[string]bool
}

// AppendLog implements runtime.LogSink.
func (l *logSink) AppendLog(ctx context.Context, stream string, offset int64, p []byte) error {
	if err := l.remember(ctx, stream); err != nil {
		return err
	}
	return l.blobs.AppendLog(ctx, stream, offset, p)
}

func (l *logSink) remember(ctx context.Context, stream string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known[stream] {
		return nil
	}
	err := l.rows.Update(ctx, func(tx store.Tx) error {
		return tx.Put(ctx, store.Row{Kind: kindLogs, Key: stream})
	})
	if err == nil {
		l.known[stream] = true
	}
	return err
}
