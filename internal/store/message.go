package store

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// ErrClosed is returned by operations on a closed store or watcher.
var ErrClosed = errors.New("store is closed")

// GetMessage reads the row's data into m and returns the row.
func GetMessage(ctx context.Context, r Reader, kind Kind, key string, m proto.Message) (Row, error) {
	row, err := r.Get(ctx, kind, key)
	if err != nil {
		return Row{}, err
	}
	return row, Unmarshal(row, m)
}

// PutMessage marshals m into row.Data and writes the row.
func PutMessage(ctx context.Context, tx Tx, row Row, m proto.Message) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("marshal %s %s: %w", row.Kind, row.Key, err)
	}
	row.Data = data
	return tx.Put(ctx, row)
}

// Unmarshal reads row.Data into m.
func Unmarshal(row Row, m proto.Message) error {
	if err := proto.Unmarshal(row.Data, m); err != nil {
		return fmt.Errorf("unmarshal %s %s: %w", row.Kind, row.Key, err)
	}
	return nil
}
