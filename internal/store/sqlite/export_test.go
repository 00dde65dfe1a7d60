package sqlite

import (
	"context"
	"fmt"

	"tategu/internal/store"
)

// ListSQL is the statement of a list, for its query plan.
func ListSQL(q store.Query) (string, []any) { return listSQL(q) }

// LimitPages makes the file full at so many pages of 4 KiB, as a disk does.
func (s *Store) LimitPages(ctx context.Context, n int) error {
	var got int
	return s.write.QueryRowContext(ctx, fmt.Sprintf("PRAGMA max_page_count(%d)", n)).Scan(&got)
}
