package local

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	"tategu/internal/blob"
	"tategu/internal/store"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// Kinds of rows. Segments are rows of blob.KindVectorSegment: what no row names is swept.
const (
	kindTable store.Kind = "vectorTable" // key: the index; a manifest as JSON
	kindLog   store.Kind = "vectorLog"   // key: logKey; a change that is in no segment yet
)

// States of rows of kindLog.
const (
	stateUpsert = "UPSERT" // data: an UpsertDatapointsRequest
	stateRemove = "REMOVE" // data: a RemoveDatapointsRequest
)

func logKey(index string, seq int64) string { return fmt.Sprintf("%s/log/%020d", index, seq) }

// manifest is what is durable of an index beside its log.
type manifest struct {
	Last     int         `json:"last"` // the greatest number that a generation has
	Current  generation  `json:"current"`
	Previous *generation `json:"previous,omitempty"`
}

// generation is what a batch update made, and what was merged into it since.
type generation struct {
	Number  int       `json:"number"` // 0 = there was no batch update
	Created time.Time `json:"created,omitzero"`
	Recall  float64   `json:"recall,omitempty"` // of its check
	Method  string    `json:"method,omitempty"`
	// Watermark is the number of the last change that is in the parts.
	Watermark int64  `json:"watermark"`
	Parts     []part `json:"parts,omitempty"`
}

// part is a segment, and which of its rows were replaced or removed later.
type part struct {
	Content string `json:"content"`
	Size    int64  `json:"size"`
	CRC32C  uint32 `json:"crc32c"`
	Rows    int    `json:"rows"`
	Sparse  int    `json:"sparse,omitempty"` // rows with a sparse embedding
	Dead    dead   `json:"dead,omitempty"`
}

// dead are rows in growing order, as the varints of their differences.
type dead []byte

func packDead(b *ann.Bitmap) dead {
	if b == nil {
		return nil
	}
	var out dead
	last := uint32(0)
	for row := range b.All() {
		out = binary.AppendUvarint(out, uint64(row-last))
		last = row
	}
	return out
}

// unpack gives nil for none.
func (d dead) unpack(rows int) (*ann.Bitmap, error) {
	if len(d) == 0 {
		return nil, nil //nolint:nilnil // no row is dead
	}
	b := ann.NewBitmap(rows)
	row := uint64(0)
	for rest := d; len(rest) > 0; {
		step, n := binary.Uvarint(rest)
		if n <= 0 || step >= uint64(rows)-row {
			return nil, fmt.Errorf("the list of dead rows of a segment of %d is damaged", rows)
		}
		row += step
		b.Set(uint32(row))
		rest = rest[n:]
	}
	return b, nil
}

func readManifest(ctx context.Context, r store.Reader, index string) (manifest, error) {
	var m manifest
	err := vector.ReadManifest(ctx, r, kindTable, index, &m)
	return m, err
}

// write makes a manifest that of an index, with the rows that keep its segments from
// being swept; those that it does not name are let go.
func (m manifest) write(ctx context.Context, tx store.Tx, index string) error {
	if err := vector.WriteManifest(ctx, tx, kindTable, index, m); err != nil {
		return err
	}
	rows, err := tx.List(ctx, store.Query{Kind: blob.KindVectorSegment, Parent: index})
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, row := range rows {
		have[row.State] = true
	}
	for _, p := range m.parts() {
		if have[p.Content] {
			delete(have, p.Content)
			continue
		}
		extent, err := json.Marshal(blob.Extent{Size: p.Size, CRC32C: p.CRC32C})
		if err != nil {
			return err
		}
		if err := tx.Put(ctx, store.Row{Kind: blob.KindVectorSegment, Key: segmentKey(index, p.Content), Parent: index, State: p.Content, Data: extent}); err != nil {
			return err
		}
	}
	for content := range have {
		if err := tx.Delete(ctx, blob.KindVectorSegment, segmentKey(index, content)); err != nil {
			return err
		}
	}
	return nil
}

func segmentKey(index, content string) string { return index + "/segments/" + content }

func (m manifest) parts() []part {
	parts := append([]part(nil), m.Current.Parts...)
	if m.Previous != nil {
		parts = append(parts, m.Previous.Parts...)
	}
	return parts
}

// trimAtOnce rows are removed in a transaction: the changes of others wait for one.
const trimAtOnce = 100

// trimLog removes changes up to one that are in segments now. Those that stay, where it is
// interrupted, are known by the manifest's watermark, and go when the index is next read.
func (b *Backend) trimLog(ctx context.Context, index string, upTo int64) error {
	end := logKey(index, upTo)
	for {
		rows, err := b.cfg.Store.List(ctx, store.Query{Kind: kindLog, Prefix: index + "/log/", Limit: trimAtOnce})
		if err != nil {
			return err
		}
		var keys []string
		for _, row := range rows {
			if row.Key <= end {
				keys = append(keys, row.Key)
			}
		}
		if len(keys) == 0 {
			return nil
		}
		err = b.cfg.Store.UpdateSoon(ctx, func(tx store.Tx) error {
			for _, key := range keys {
				if err := tx.Delete(ctx, kindLog, key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("trim the log of %s: %w", index, err)
		}
		if len(keys) < trimAtOnce {
			return nil
		}
	}
}
