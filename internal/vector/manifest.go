package vector

import (
	"context"
	"encoding/json"
	"fmt"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// ReadManifest reads what a backend keeps of an index: a row of its own kind, as JSON.
// An index without one leaves m as it is.
func ReadManifest(ctx context.Context, r store.Reader, kind store.Kind, index string, m any) error {
	row, err := r.Get(ctx, kind, index)
	if resource.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return DecodeManifest(row, m)
}

// DecodeManifest reads a row that was listed.
func DecodeManifest(row store.Row, m any) error {
	if err := json.Unmarshal(row.Data, m); err != nil {
		return fmt.Errorf("the manifest of %s is damaged: %w", row.Key, err)
	}
	return nil
}

// WriteManifest writes that row, which goes with the index.
func WriteManifest(ctx context.Context, tx store.Tx, kind store.Kind, index string, m any) error {
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("manifest of %s: %w", index, err)
	}
	return tx.Put(ctx, store.Row{Kind: kind, Key: index, Parent: index, Data: data})
}
