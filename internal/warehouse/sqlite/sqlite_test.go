package sqlite_test

import (
	"database/sql"
	"path/filepath"
	"testing"

	"tategu/internal/warehouse"
	"tategu/internal/warehouse/sqlite"
	"tategu/internal/warehouse/warehousetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w h.db")
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	warehousetest.Run(t, func() warehouse.Warehouse {
		w, err := sqlite.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}, db)
}
