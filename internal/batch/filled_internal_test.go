package batch

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tategu/internal/batch/score"
	"tategu/internal/blob"
)

// one is an object store with one object.
type one struct {
	Objects

	generation int64
}

func (o one) OpenLive(context.Context, string, string) (blob.Object, io.ReadCloser, error) {
	return blob.Object{Generation: o.generation}, io.NopCloser(strings.NewReader("")), nil
}

// TestFilled: a section that a worker cannot read is sent with all that it has, lines
// counted; and one that nobody can read says that its object is another one.
func TestFilled(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, []byte("1\n2\n3\n4\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := &run{objects: one{generation: 7}, plan: &plan{Inputs: []input{{Bucket: "b", Name: "o", Generation: 7}}, Sections: []section{{{From: 3, To: 8}}}}}
	placed := func(file string) *unit {
		u, err := newUnit(0, score.Spec{Input: score.JSONL, Pieces: []score.Piece{{Source: "gs://b/o", File: file, From: 3, To: 8}}}, make([]byte, headRoom))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	u, err := r.filled(t.Context(), placed(path))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(u.body[u.head:]); got != "3\n4\n" {
		t.Errorf("the section is %q", got)
	}
	if want := int64(crc32.Checksum([]byte("\n3\n4\n"), crc32.MakeTable(crc32.Castagnoli))); !slices.Equal(u.sums, []int64{want}) {
		t.Errorf("the sums of what was read are %v, want %d", u.sums, want)
	}
	var spec score.Spec
	head := u.body[u.head-u.headLength : u.head]
	if err := json.Unmarshal(head[4:], &spec); err != nil || int(binary.BigEndian.Uint32(head)) != len(head)-4 {
		t.Fatalf("%q, %v", head, err)
	}
	if p := spec.Pieces[0]; p.File != "" || p.Line != 3 || p.Bytes != 4 {
		t.Errorf("%+v", p)
	}
	if _, err := r.filled(t.Context(), placed(path+"x")); err == nil || !strings.Contains(err.Error(), "section 0") {
		t.Errorf("a file that is gone: %v", err)
	}
	r.objects = one{generation: 8}
	if _, err := r.filled(t.Context(), placed(path+"x")); err == nil || !strings.Contains(err.Error(), "was overwritten") {
		t.Errorf("an object that is another one: %v", err)
	}
}
