package torchserve_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"tategu/internal/torchserve"
)

func TestLastSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if got, err := torchserve.LastSnapshot(filepath.Join(dir, "none")); got != "" || err != nil {
		t.Errorf("of no folder: %q, %v", got, err)
	}
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"20261127-startup.cfg": time.Hour, "20261126-shutdown.cfg": time.Minute, "20261128-snap.cfg": 2 * time.Hour, ".new.cfg": 0, "20261129.tmp": 0,
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	want := filepath.Join(dir, "20261126-shutdown.cfg")
	if got, err := torchserve.LastSnapshot(dir); got != want || err != nil {
		t.Errorf("LastSnapshot = %q, %v; want %q", got, err, want)
	}
}
