package blob

import (
	"context"
	"encoding/json"
	"fmt"

	"tategu/internal/store"
)

// Kinds of rows of other packages (image, vector/local) whose state is the id of a
// content. They are known here because what no row names is swept.
const (
	KindImageBlob     store.Kind = "imageBlob"
	KindImageUpload   store.Kind = "imageUpload"
	KindVectorSegment store.Kind = "vectorSegment"
)

// Extent is what the JSON of a row of these kinds says of its content.
type Extent struct {
	Size   int64  `json:"size"`
	CRC32C uint32 `json:"crc32c"`
}

func rowExtent(row store.Row) (Extent, error) {
	var e Extent
	if err := json.Unmarshal(row.Data, &e); err != nil {
		return e, fmt.Errorf("decode %s %s: %w", row.Kind, row.Key, err)
	}
	return e, nil
}

// Contents gives the byte strings themselves, for what is kept outside of buckets.
// Who writes one names it in the state of a row of a kind in contentKinds within
// the hour, else it counts as left behind by a crash.
func (s *Store) Contents() Content { return s.content }

// Lock waits for a lock of a name among all users of the store.
func (s *Store) Lock(ctx context.Context, name string) (unlock func(), err error) {
	return s.locks.lock(ctx, "outside-"+name)
}
