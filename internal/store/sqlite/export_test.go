package sqlite

import "tategu/internal/store"

// ListSQL is the statement of a list, for its query plan.
func ListSQL(q store.Query) (string, []any) { return listSQL(q) }
