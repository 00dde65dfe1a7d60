package postgres_test

import (
	"strings"
	"testing"

	"tategu/internal/warehouse/postgres"
)

// What is wrong with an address is told without the password in it.
func TestOpenKeepsThePassword(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{
		"postgres://tategu:hunter2@db:port/shop", "postgres://tategu:hunter2@db/shop?connect_timeout=x", "postgres://tategu:hunter2%@db/shop",
		"password=hunter2 host", "host=db password='hunter2", "postgres://tategu:hunter2@db/shop?sslmode=hm", "host=db password=hunter2 connect_timeout=x",
	} {
		w, err := postgres.Open(dsn)
		if err == nil {
			t.Errorf("%q is taken", dsn)
			_ = w.Close()
			continue
		}
		t.Log(err)
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the password is told: %v", err)
		}
	}
}
