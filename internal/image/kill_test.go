package image_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/image"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("TATEGU_TEST_PUSH"); dir != "" {
		if err := pushForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// content of the nth blob: small ones are rows, large ones are files.
func content(n int) []byte {
	return []byte(strings.Repeat(strconv.Itoa(n)+" ", 1+n%5*8000))
}

func openStore(ctx context.Context, dir string) (*image.Store, *blob.Store, io.Closer, error) {
	rows, err := sqlite.Open(ctx, filepath.Join(dir, "state.db"))
	if err != nil {
		return nil, nil, nil, err
	}
	c, err := disk.Open(filepath.Join(dir, "content"))
	if err != nil {
		return nil, nil, nil, errors.Join(err, rows.Close())
	}
	blobs := blob.New(rows, c, time.Now)
	return image.New(rows, blobs, time.Now), blobs, rows, nil
}

// pushForever is the child of TestKill: three writers that push blobs whole and in
// pieces, and manifests of them, and print what was acknowledged: "blob N", "part ID
// BYTES" and "manifest N DIGEST".
func pushForever(dir string) error {
	ctx := context.Background()
	s, _, _, err := openStore(ctx, dir)
	if err != nil {
		return err
	}
	failed := make(chan error)
	for w := range 3 {
		go func() {
			for n := w * 1_000_000; ; n++ {
				if err := pushOne(ctx, s, n); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	return <-failed
}

func pushOne(ctx context.Context, s *image.Store, n int) error {
	data := content(n)
	d := image.DigestOf(data)
	r := image.Repo{Name: "app", Project: "p"}
	if n%2 == 0 {
		if _, err := s.PutBlob(ctx, r, d, bytes.NewReader(data)); err != nil {
			return err
		}
	} else if err := pushParts(ctx, s, r, d, data); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(os.Stdout, "blob", n); err != nil {
		return err
	}
	desc := image.Descriptor{MediaType: "application/x", Digest: d, Size: int64(len(data))}
	raw, err := json.Marshal(image.Manifest{SchemaVersion: 2, MediaType: image.TypeOCIManifest, Config: &desc})
	if err != nil {
		return err
	}
	st, _, err := s.PutManifest(ctx, r, "t"+strconv.Itoa(n), "", raw)
	if err == nil {
		_, err = fmt.Fprintln(os.Stdout, "manifest", n, st.Digest)
	}
	return err
}

func pushParts(ctx context.Context, s *image.Store, r image.Repo, d image.Digest, data []byte) error {
	u, err := s.StartUpload(ctx, r)
	if err != nil {
		return err
	}
	for len(data) > 0 {
		n := min(len(data), 20_000)
		if u, err = s.AppendUpload(ctx, r.Name, u.ID, u.Received, int64(n), bytes.NewReader(data[:n])); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, "part", u.ID, u.Received); err != nil {
			return err
		}
		data = data[n:]
	}
	_, err = s.FinishUpload(ctx, r.Name, u.ID, d)
	return err
}

// TestKill kills the pushing process at growing numbers of acknowledged lines: what
// was acknowledged is there, whole.
func TestKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for round := range 4 {
		acked := pushAndKill(t, dir, 15+round*40)
		checkAcked(t, dir, acked)
	}
}

func pushAndKill(t *testing.T, dir string, lines int) (acked []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "TATEGU_TEST_PUSH="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(out); in.Scan(); {
		acked = append(acked, in.Text())
		if len(acked) == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(acked) < lines {
		t.Fatalf("the child ended by itself after %d lines: %v", len(acked), err)
	}
	return acked
}

func checkAcked(t *testing.T, dir string, acked []string) {
	t.Helper()
	s, blobs, rows, err := openStore(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	}()
	parts := map[string]int64{}
	for _, line := range acked {
		f := strings.Fields(line)
		if f[0] == "part" {
			n, err := strconv.ParseInt(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			parts[f[1]] = n
			continue
		}
		n, err := strconv.Atoi(f[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blob(t.Context(), "app", image.DigestOf(content(n))); err != nil {
			t.Errorf("%s: %v", line, err)
		}
		if f[0] == "manifest" {
			if st, err := s.Manifest(t.Context(), "app", "t"+f[1]); err != nil || string(st.Digest) != f[2] {
				t.Errorf("%s: %s, %v", line, st.Digest, err)
			}
		}
	}
	// Uploads that were under way go on where they stood.
	resumed := 0
	for id, n := range parts {
		u, err := s.GetUpload(t.Context(), "app", id)
		if code(err) == image.ErrBlobUploadUnknown {
			continue // finished
		}
		resumed++
		if err != nil || u.Received < n {
			t.Errorf("upload %s has %d bytes of %d, %v", id, u.Received, n, err)
		}
		if err := s.CancelUpload(t.Context(), "app", id); err != nil {
			t.Error(err)
		}
	}
	checked, err := s.Check(t.Context(), func(d image.Digest, err error) { t.Errorf("damaged: %s: %v", d, err) })
	if err != nil {
		t.Error(err)
	}
	// The state names all that it needs: what a sweep takes was never acknowledged.
	if _, err := blobs.Sweep(t.Context(), -time.Hour); err != nil {
		t.Error(err)
	}
	again, err := s.Check(t.Context(), func(d image.Digest, err error) { t.Errorf("gone by the sweep: %s: %v", d, err) })
	if err != nil || again != checked {
		t.Errorf("checked %+v and after the sweep %+v, %v", checked, again, err)
	}
	t.Logf("%d lines acknowledged, %d blobs, %d uploads under way", len(acked), checked.Blobs, resumed)
}
