package score

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestLinesAreCountedOnce: however many rows of a piece are bad, and whatever other pieces
// of the file are counted meanwhile, the lines before it are counted once.
func TestLinesAreCountedOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, []byte("1\n2\n3\n4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var f Files
	spec, _, _, err := f.Load(Spec{Pieces: []Piece{{File: path, From: 2, To: 4}, {File: path, From: 6, To: 8}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	early, late := spec.Pieces[0].before, spec.Pieces[1].before
	n, err := early()
	m, err2 := late()
	if err := errors.Join(err, err2, os.Remove(path)); err != nil || n != 1 || m != 3 {
		t.Fatalf("%d and %d lines, %v", n, m, err)
	}
	for range 3 {
		if n, err := early(); err != nil || n != 1 {
			t.Errorf("%d lines, %v", n, err)
		}
	}
}
