package bucket

import (
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func fixedHistory() []step { return history(rand.New(rand.NewPCG(7, 7)), 20) }

// refused wants an error of the server's side with all parts in it.
func refused(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %q", err, part)
		}
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"gs://bucket":                           "gs://bucket",
		"gs://bucket?prefix=a/b&anonymous=true": "gs://bucket?prefix=a/b/",
		"s3://bucket?region=eu-west-1&prefix=/": "s3://bucket",
		"azure://box?storage_account=me":        "azure://box",
		"file:///srv/objects?prefix=x":          "file:///srv/objects?prefix=x/",
	} {
		a, u, err := Parse(raw)
		if err != nil || a.String() != want {
			t.Errorf("Parse(%q) = %q, %v, want %q", raw, a, err, want)
		}
		if err == nil && u.Query().Has("prefix") {
			t.Errorf("the driver is given the prefix of %q", raw)
		}
	}
	for _, raw := range []string{
		"", "bucket", "mem://", "http://bucket", "gs://", "gs:///x", "s3://bucket/folder", "file://relative", "file:x", "gs://b?prefix=../x", "gs://b?prefix=a//b",
		"gs://b?prefix=a%00", "gs://b?prefix=%C3%A4", "gs://b%zz",
	} {
		if _, _, err := Parse(raw); resource.CodeOf(err) != codes.InvalidArgument {
			t.Errorf("Parse(%q) = %v", raw, err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	dead := freeAddress(t)
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "x")
	t.Setenv("AZURE_STORAGE_ACCOUNT", "account")
	t.Setenv("AZURE_STORAGE_KEY", "a2V5")
	forbidding := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }))
	t.Cleanup(forbidding.Close)
	host := strings.TrimPrefix(forbidding.URL, "http://")
	for url, parts := range map[string][]string{
		"s3://box?region=eu-west-1&use_path_style=true&endpoint=http://" + dead:    {"s3://box", "cannot be used now", "AWS_ACCESS_KEY_ID"},
		"gs://box?anonymous=true&endpoint=http://" + dead:                          {"gs://box", "cannot be used now", "GOOGLE_APPLICATION_CREDENTIALS"},
		"s3://box?region=eu-west-1&use_path_style=true&endpoint=" + forbidding.URL: {"s3://box", "does not let us", "AWS_ACCESS_KEY_ID"},
		"gs://box?anonymous=true&endpoint=" + forbidding.URL:                       {"gs://box", "does not let us", "GOOGLE_APPLICATION_CREDENTIALS"},
		"azure://box?protocol=http&domain=" + host:                                 {"azure://box", "does not let us", "AZURE_STORAGE_KEY"},
		"file://" + filepath.Join(t.TempDir(), "missing"):                          {"missing", "does not exist"},
		"gs://box?colour=red&anonymous=true":                                       {`no parameter "colour"`},
	} {
		c, err := Open(t.Context(), url, logger(t), time.Now)
		if err == nil {
			t.Errorf("%s was opened: %v", url, c.Close())
			continue
		}
		refused(t, err, parts...)
		if code := resource.CodeOf(err); code != codes.Unavailable {
			t.Errorf("%s: code %v", url, code)
		}
	}
	t.Setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
	_, err := Open(t.Context(), "gs://box?anonymous=true", logger(t), time.Now)
	refused(t, err, "STORAGE_EMULATOR_HOST", "endpoint=")
}

// TestErrors: a full store is told from one that fails, and a missing permission is
// never taken for a missing content, which would be an empty log.
func TestErrors(t *testing.T) {
	status := http.StatusInsufficientStorage
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Method == http.MethodGet && status == http.StatusInsufficientStorage {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, "{}")
			return
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(server.Close)
	c, err := Open(t.Context(), "gs://box?anonymous=true&endpoint="+server.URL, logger(t), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = c.Append(t.Context(), id, 0, strings.NewReader("x"))
	if resource.CodeOf(err) != codes.ResourceExhausted {
		t.Errorf("a full store gives %v", err)
	}
	for _, status = range []int{http.StatusForbidden, http.StatusUnauthorized, http.StatusNotFound} {
		for op, do := range map[string]func() error{
			"Open":   func() error { _, err := c.Open(t.Context(), id, 0, -1); return err },
			"Size":   func() error { _, err := c.Size(t.Context(), id); return err },
			"Link":   func() error { _, err := c.Link(t.Context(), id); return err },
			"Remove": func() error { return c.Remove(t.Context(), id) },
		} {
			if err := do(); resource.CodeOf(err) != codes.Unavailable || errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s answered with %d: %v", op, status, err)
			}
		}
	}
	status, c.stall = http.StatusServiceUnavailable, time.Millisecond
	_, err = c.Append(t.Context(), id, 0, strings.NewReader("x"))
	refused(t, err, "cannot be used now")
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		if err := c.failed("write to", &os.PathError{Op: "write", Err: errno}); resource.CodeOf(err) != codes.ResourceExhausted || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
	}
}
