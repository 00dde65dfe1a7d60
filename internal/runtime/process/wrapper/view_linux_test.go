package wrapper

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestViewTooOld: what was copied of / is used as long as / has the same entries.
func TestViewTooOld(t *testing.T) {
	t.Parallel()
	for name, makes := range map[string]string{"the same": "", "one more": "new"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			f, err := os.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			v := &view{before: f}
			if v.at, err = changed(f); err != nil {
				t.Fatal(err)
			}
			if makes != "" {
				if err := os.Mkdir(filepath.Join(dir, makes), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := v.current(); (err != nil) != (makes != "") || err != nil && !strings.Contains(err.Error(), "has changed") {
				t.Fatal(err)
			}
		})
	}
}
