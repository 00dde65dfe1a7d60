package score_test

import (
	"bytes"
	"context"
	"hash/crc32"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"tategu/internal/batch/score"
	"tategu/internal/modelformat"
)

// checkPieces cuts text, which begins somewhere in a file, at some places and checks
// that each line comes out once, in one piece, with its number and with the sums of the
// bytes.
func checkPieces(t *testing.T, text string, cuts ...int64) {
	t.Helper()
	const before = "not of the object\n\n"
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, []byte(before+text), 0o600); err != nil {
		t.Fatal(err)
	}
	var files score.Files
	var all []byte
	from := int64(0)
	slices.Sort(cuts)
	for _, to := range append(cuts, int64(len(text))) {
		spec := score.Spec{Pieces: []score.Piece{{Source: "gs://b/o", File: path, Offset: int64(len(before)), From: from, To: to}}}
		got, part, sums, err := files.Load(spec, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = got.Numbered(); err != nil {
			t.Fatal(err)
		}
		want := 1 + strings.Count(text[:len(all)], "\n")
		if p := got.Pieces[0]; p.Bytes != len(part) || p.File != "" || len(part) > 0 && p.Line != want {
			t.Errorf("%q from %d to %d: %q is %d bytes, at line %d, want %d", text, from, to, part, p.Bytes, p.Line, want)
		}
		if sum := crc32.Checksum([]byte(text[from:to]), crc32.MakeTable(crc32.Castagnoli)); len(sums) != 1 || sums[0] != int64(sum) {
			t.Errorf("%q from %d to %d: sums %v, want %d", text, from, to, sums, sum)
		}
		if len(part) > 0 && len(all) > 0 && all[len(all)-1] != '\n' {
			t.Errorf("%q: a line is cut before %q", text, part)
		}
		all = append(all, part...)
		from = to
	}
	if string(all) != text {
		t.Errorf("%q became %q", text, all)
	}
}

func TestPiecesOfFiles(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "a", "a\n", "a\nbb\n\nccc\nd", "\n\n\n", strings.Repeat("x", 300<<10) + "\ny\n"} {
		for cut := int64(0); cut <= int64(min(len(text), 12)); cut++ {
			checkPieces(t, text, cut)
			checkPieces(t, text, cut/2, cut)
		}
	}
}

// FuzzPiecesOfFiles: wherever an object is cut, each line comes out once.
func FuzzPiecesOfFiles(f *testing.F) {
	f.Add("a\nbb\n\nccc\nd", uint16(3), uint16(5))
	f.Fuzz(func(t *testing.T, text string, a, b uint16) {
		n := int64(len(text)) + 1
		checkPieces(t, text, int64(a)%n, int64(b)%n)
	})
}

// TestSentAndRead: pieces that are sent stand between those that are read.
func TestSentAndRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, []byte("1\n2\n3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := score.Spec{Pieces: []score.Piece{{Source: "a", File: path, From: 2, To: 4}, {Source: "b", Line: 7, Bytes: 2}, {Source: "a", File: path, From: 4, To: 6}}}
	var files score.Files
	got, section, sums, err := files.Load(spec, []byte("x\n"), nil)
	if err == nil {
		got, err = got.Numbered()
	}
	if err != nil || string(section) != "2\nx\n3\n" || sums[1] != score.Sent || sums[0] == score.Sent {
		t.Fatalf("%q, %v, %v", section, sums, err)
	}
	for i, want := range []int{2, 7, 3} {
		if got.Pieces[i].Line != want {
			t.Errorf("piece %d is at line %d, want %d", i, got.Pieces[i].Line, want)
		}
	}
	for name, p := range map[string]score.Piece{"gone": {File: path + "x", To: 1}, "short": {File: path, To: 9}, "large": {File: path, To: 1 << 40}, "turned": {File: path, From: 2, To: 1}, "negative": {File: path, From: -1, To: 1}} {
		if _, _, _, err := files.Load(score.Spec{Pieces: []score.Piece{p}}, nil, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestWorkerReadsFiles: for who knows the secret alone; bad rows are told by their line of the
// object, and the cores that the server says are left.
func TestWorkerReadsFiles(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../modelformat/lightgbm/testdata/golden/regression.model.txt")
	if err != nil {
		t.Fatal(err)
	}
	model, err := modelformat.ReadNative(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(path, []byte("[1,2,3,4,5,6]\n[1,2,3,4,5,7]\n{\n[1,2,3,4,5,8]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	left, ended := make(chan int, 10), make(chan error, 1)
	go func() { ended <- score.Serve(ctx, l, model, score.Host{Secret: "s", Leave: func(n int) { left <- n }}) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	ask := func(secret, file string) (status int, results, failures string, stats score.Stats) {
		spec := score.Spec{Input: score.JSONL, Output: score.JSONL, Pieces: []score.Piece{{Source: "gs://b/o", File: file, From: 15, To: 44}}}
		head, err := score.AppendSpec(nil, spec)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.Addr().String()+score.ScoreRoute, bytes.NewReader(head))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(score.SecretHeader, secret)
		r.Header.Set(score.LeaveHeader, strconv.Itoa(len(secret)))
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return resp.StatusCode, "", "", stats
		}
		var good, bad strings.Builder
		if stats, err = score.ReadAnswer(resp.Body, &good, &bad); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, good.String(), bad.String(), stats
	}
	status, results, failures, stats := ask("s", path)
	if status != http.StatusOK || strings.Count(results, "\n") != 1 || !strings.Contains(results, "[1,2,3,4,5,8]") || !strings.Contains(failures, `"line":3`) ||
		len(stats.Failures) != 1 || stats.Failures[0].Line != 3 || len(stats.Sums) != 1 {
		t.Errorf("%d, %q, %q, %+v", status, results, failures, stats)
	}
	if n := <-left; n != 1 {
		t.Errorf("%d cores are left", n)
	}
	for _, secret := range []string{"", "t", "ss"} {
		if status, _, _, _ := ask(secret, path); status != http.StatusForbidden {
			t.Errorf("with the secret %q: %d", secret, status)
		}
	}
	if status, _, _, _ := ask("s", path+"x"); status != score.StatusUnreadable {
		t.Errorf("a file that is gone: %d", status)
	}
}
