package app

import (
	"os"
	"path/filepath"
	"testing"
)

// TestVectorCache: servers of two data directories share a cache and nothing in it; what
// belongs to one that is gone goes.
func TestVectorCache(t *testing.T) {
	t.Parallel()
	root, first, second := filepath.Join(t.TempDir(), "vectors"), t.TempDir(), t.TempDir()
	one, err := vectorCache(root, first)
	if err != nil {
		t.Fatal(err)
	}
	kept, old := filepath.Join(one, "x.segment"), filepath.Join(root, "old.segment")
	for _, path := range []string{kept, old} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	two, err := vectorCache(root, second)
	if err != nil {
		t.Fatal(err)
	}
	if one == two {
		t.Fatal("both have one directory")
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a file of the first: %v", err)
	}
	if _, err := os.Stat(old); !os.IsNotExist(err) {
		t.Errorf("a file of an earlier version: %v", err)
	}
	// Another server at its start is about to say whose its directory is.
	if err := os.WriteFile(filepath.Join(one, cacheOwner), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(root, ".build-1")
	if err := os.MkdirAll(torn, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := vectorCache(root, second); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a file of one that is starting: %v", err)
	}
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("what an earlier version left half way: %v", err)
	}
	if _, err := vectorCache(root, first); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	if again, err := vectorCache(root, second); err != nil || again != two {
		t.Errorf("%s, %v", again, err)
	}
	if _, err := os.Stat(one); !os.IsNotExist(err) {
		t.Errorf("the cache of a data directory that is gone: %v", err)
	}
	if _, err := os.Stat(two); err != nil {
		t.Error(err)
	}
}
