package postgres_test

import (
	"database/sql"
	"testing"

	"tategu/internal/warehouse"
	"tategu/internal/warehouse/postgres"
	"tategu/internal/warehouse/warehousetest"
)

func TestContract(t *testing.T) {
	t.Parallel()
	dsn := warehousetest.Postgres(t)
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	warehousetest.Run(t, func() warehouse.Warehouse {
		w, err := postgres.Open(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}, db)
}
