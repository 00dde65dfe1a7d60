package blob

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// kindSmall rows hold small contents; key: content id.
const kindSmall store.Kind = "content"

// maxSmall is the most bytes that a row holds. Below, the two fsyncs, the rename
// and the new inode of a file cost more than to write the bytes twice, to the log
// and to the table (docs/adr/0005-storage-speed.md).
const maxSmall = 16 << 10

// smallPrefix starts the ids of small contents; ids of a Content port are hex.
const smallPrefix = "row-"

// contents is the Content of a Store: what is small is a row, which becomes
// durable by the same commit as the object that names it; the rest is in the port.
type contents struct {
	Content // the large ones
	rows    store.Store
}

var _ Content = contents{}

func isSmall(id string) bool { return strings.HasPrefix(id, smallPrefix) }

// take reads r to its end. What is small is given back with the function that
// stores it in the transaction that names it; what is not is durable already.
func (c contents) take(ctx context.Context, r io.Reader) (id string, d Digest, save func(store.Tx) error, err error) {
	data, err := io.ReadAll(io.LimitReader(r, maxSmall+1))
	if err != nil {
		return "", Digest{}, nil, err
	}
	if len(data) > maxSmall {
		id, d, err := c.Create(ctx, io.MultiReader(bytes.NewReader(data), r))
		return id, d, func(store.Tx) error { return nil }, err
	}
	h := NewHasher(bytes.NewReader(data))
	if _, err := io.Copy(io.Discard, h); err != nil {
		return "", Digest{}, nil, err
	}
	id = smallPrefix + resource.RandomID()
	return id, h.Digest(), func(tx store.Tx) error { return putSmall(ctx, tx, id, data) }, nil
}

func putSmall(ctx context.Context, tx store.Tx, id string, data []byte) error {
	return tx.Put(ctx, store.Row{Kind: kindSmall, Key: id, Data: data})
}

// small reads a small content; a missing one is fs.ErrNotExist, as of the port.
func (c contents) small(ctx context.Context, id string) ([]byte, error) {
	row, err := c.rows.Get(ctx, kindSmall, id)
	if resource.IsNotFound(err) {
		return nil, &fs.PathError{Op: "open", Path: id, Err: fs.ErrNotExist}
	}
	return row.Data, err
}

// Append implements Content. Small contents are written once.
func (c contents) Append(ctx context.Context, id string, offset int64, r io.Reader) (int64, error) {
	if isSmall(id) {
		return 0, fmt.Errorf("append to content %s: it is a row", id)
	}
	return c.Content.Append(ctx, id, offset, r)
}

// Open implements Content.
func (c contents) Open(ctx context.Context, id string, offset, length int64) (io.ReadCloser, error) {
	if !isSmall(id) {
		return c.Content.Open(ctx, id, offset, length)
	}
	data, err := c.small(ctx, id)
	if err != nil {
		return nil, err
	}
	data = data[min(offset, int64(len(data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Size implements Content.
func (c contents) Size(ctx context.Context, id string) (int64, error) {
	if !isSmall(id) {
		return c.Content.Size(ctx, id)
	}
	data, err := c.small(ctx, id)
	return int64(len(data)), err
}

// Link implements Content: a small content is copied.
func (c contents) Link(ctx context.Context, id string) (string, error) {
	if !isSmall(id) {
		return c.Content.Link(ctx, id)
	}
	data, err := c.small(ctx, id)
	if err != nil {
		return "", err
	}
	second := smallPrefix + resource.RandomID()
	return second, c.rows.Update(ctx, func(tx store.Tx) error { return putSmall(ctx, tx, second, data) })
}

// Remove implements Content.
func (c contents) Remove(ctx context.Context, id string) error {
	if !isSmall(id) {
		return c.Content.Remove(ctx, id)
	}
	// A content that was never named has no row, and costs no commit.
	if _, err := c.rows.Get(ctx, kindSmall, id); resource.IsNotFound(err) {
		return nil
	}
	return c.rows.Update(ctx, func(tx store.Tx) error { return tx.Delete(ctx, kindSmall, id) })
}

// Walk implements Content.
func (c contents) Walk(ctx context.Context, fn func(id string, written time.Time) error) error {
	if err := c.Content.Walk(ctx, fn); err != nil {
		return err
	}
	for after := ""; ; {
		rows, err := c.rows.List(ctx, store.Query{Kind: kindSmall, After: after, Limit: sweepBatch})
		if err != nil || len(rows) == 0 {
			return err
		}
		for _, row := range rows {
			if err := fn(row.Key, row.Updated); err != nil {
				return err
			}
		}
		after = rows[len(rows)-1].Key
	}
}
