package blob_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tategu/internal/blob"
	"tategu/internal/store"
)

// TestCheckContents: a flipped bit and a missing file are found and named, in files
// and in rows; nothing else is.
func TestCheckContents(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	large := strings.Repeat("0123456789abcdef", 4096)
	f.put(t, "good", large)
	f.put(t, "small", "abc")
	flipped, missing, row := f.put(t, "flipped", large), f.put(t, "missing", large), f.put(t, "row", "abc")
	file := func(o blob.Object) string {
		return filepath.Join(f.dir, "content", o.Content[len(o.Content)-2:], o.Content)
	}
	text, err := os.ReadFile(file(flipped))
	if err != nil {
		t.Fatal(err)
	}
	text[40_000] ^= 1
	if err := os.WriteFile(file(flipped), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file(missing)); err != nil {
		t.Fatal(err)
	}
	err = f.rows.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(t.Context(), store.Row{Kind: "content", Key: row.Content, Data: []byte("abd")})
	})
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	done, err := f.CheckContents(t.Context(), func(o blob.Object, err error) { found[o.Name] = err.Error() })
	if err != nil || done != (blob.Checked{Objects: 5, Bytes: 3*65536 + 6, Damaged: 3}) {
		t.Errorf("%+v, %v", done, err)
	}
	for name, want := range map[string]string{"flipped": "CRC32C", "missing": "is missing", "row": "CRC32C"} {
		if !strings.Contains(found[name], want) {
			t.Errorf("%s: %q, want %q", name, found[name], want)
		}
	}
	if len(found) != 3 {
		t.Errorf("found %v", found)
	}
}
