package local

import (
	"context"

	"tategu/internal/store"
)

// Keeps names an index that the backend keeps, "" for none.
func Keeps(ctx context.Context, r store.Reader) (string, error) {
	for _, kind := range []store.Kind{kindTable, kindLog} {
		rows, err := r.List(ctx, store.Query{Kind: kind, Limit: 1})
		if err != nil {
			return "", err
		}
		if len(rows) > 0 {
			return rows[0].Parent, nil
		}
	}
	return "", nil
}
