package workload

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"

	"tategu/internal/runtime"
)

type keptLog struct {
	text  bytes.Buffer
	parts int
}

func (k *keptLog) AppendLog(_ context.Context, _ string, _ int64, p []byte) error {
	k.parts++
	k.text.Write(p)
	return nil
}

// TestShipperKeepsUp: when a program writes on between the look at the size of its
// output and the reading, the rest is copied in large parts, however little there was.
func TestShipperKeepsUp(t *testing.T) {
	t.Parallel()
	text := bytes.Repeat([]byte("text\n"), 400_000)
	sink := &keptLog{}
	s := NewShipper(sink, runtime.Workload{ID: "w", Owner: "o"}, t.TempDir())
	if err := s.copyFrom(t.Context(), bytes.NewReader(text), 1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(sink.text.Bytes(), text) {
		t.Errorf("%d bytes kept of %d", sink.text.Len(), len(text))
	}
	if want := 2 + len(text)/shipChunk; sink.parts != want {
		t.Errorf("2 MB were copied in %d parts, want %d", sink.parts, want)
	}
}

// TestUnlogged: the output of a workload that is not to be kept reaches no sink.
func TestUnlogged(t *testing.T) {
	t.Parallel()
	for _, unlogged := range []bool{true, false} {
		dir, sink := t.TempDir(), &keptLog{}
		if err := os.WriteFile(filepath.Join(dir, Output), []byte("said"), 0o600); err != nil {
			t.Fatal(err)
		}
		s := NewShipper(sink, runtime.Workload{ID: "w", Owner: "o", Unlogged: unlogged}, dir)
		s.Begin()
		s.End()
		if err := s.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]string{true: "", false: "said"}[unlogged]; sink.text.String() != want {
			t.Errorf("unlogged %v: kept %q", unlogged, sink.text.String())
		}
	}
}
