package app

import (
	"context"

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
}

// AppendLog implements runtime.LogSink. The row of a stream is written before its
// first byte is kept, so that one which goes on has it: nothing is remembered of
// streams, of which there are as many as tasks. Neither waits for the disk.
func (l *logSink) AppendLog(ctx context.Context, stream string, offset int64, p []byte) error {
	if offset == 0 {
		err := l.rows.UpdateSoon(ctx, func(tx store.Tx) error {
			return tx.Put(ctx, store.Row{Kind: kindLogs, Key: stream})
		})
		if err != nil {
			return err
		}
	}
	return l.blobs.AppendLog(ctx, stream, offset, p)
}
