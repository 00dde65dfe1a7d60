package wrapper_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"tategu/internal/runtime/process/wrapper"
	"tategu/internal/runtime/record"
)

// FuzzRecords: a file is a whole record or a torn one, and a torn one says nothing
// that anybody could act on.
func FuzzRecords(f *testing.F) {
	f.Add([]byte(`{"Command":["true"],"Container":{"Root":"/","IDs":{}}}`))
	f.Add([]byte(`{"PID":12,"Start":"345"}`))
	f.Add([]byte(`{"Code":3,"Ended":"2026-01-02T03:04:05Z"}`))
	f.Add([]byte("null"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, content []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, v := range []record.Whole{&wrapper.Spec{}, &wrapper.Running{}, &wrapper.Exit{}} {
			err := record.ReadWhole(path, v)
			if err == nil && !v.Whole() || err != nil && !errors.Is(err, record.ErrTorn) {
				t.Fatalf("%T: %v, whole %t", v, err, v.Whole())
			}
			if err != nil {
				continue
			}
			again := filepath.Join(t.TempDir(), "again")
			if err := record.WriteWhole(again, v); err != nil {
				t.Fatalf("%T cannot be written again: %v", v, err)
			}
			if err := record.ReadWhole(again, v); err != nil {
				t.Fatalf("%T is torn when written again: %v", v, err)
			}
		}
	})
}
