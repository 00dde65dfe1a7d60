package bucket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"tategu/internal/blob"
	"tategu/internal/blob/blobtest"
)

// start runs a server until the test ends, once a line of its output has ready in it.
func start(t *testing.T, ready string, program string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var seen strings.Builder
	for lines.Scan() {
		seen.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), ready) {
			done := make(chan struct{})
			go func() { defer close(done); _, _ = io.Copy(io.Discard, out) }()
			t.Cleanup(func() {
				_ = cmd.Process.Kill() // it may have ended with the test's context
				<-done
				_ = cmd.Wait() // ended by us
			})
			return
		}
	}
	t.Fatalf("%s ended before it was ready (%v):\n%s", program, cmd.Wait(), seen.String())
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return l.Addr().String()
}

// s3Server starts a server of the S3 API and gives the URL of a bucket.
func s3Server(t *testing.T) string {
	t.Helper()
	program := os.Getenv("TATEGU_TEST_VERSITYGW")
	if program == "" {
		t.Skip("TATEGU_TEST_VERSITYGW does not name an S3 server: make test-buckets builds one")
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "tategu")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "tategu-secret")
	t.Setenv("ROOT_ACCESS_KEY", "tategu")
	t.Setenv("ROOT_SECRET_KEY", "tategu-secret")
	data := t.TempDir()
	for _, dir := range []string{"data/objects", "attributes"} {
		if err := os.MkdirAll(filepath.Join(data, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	start(t, "http://"+address, program, "--port", address, "posix", "--sidecar", filepath.Join(data, "attributes"), filepath.Join(data, "data"))
	return "s3://objects?region=us-east-1&use_path_style=true&endpoint=http://" + address
}

// gsServer starts tategu itself and gives the URL of a bucket in it.
func gsServer(t *testing.T) string {
	t.Helper()
	program := os.Getenv("TATEGU_BIN")
	if program == "" {
		t.Skip("TATEGU_BIN does not name a built tategu: make test-buckets does")
	}
	data, address := t.TempDir(), freeAddress(t)
	config := filepath.Join(data, "tategu.yaml")
	if err := os.WriteFile(config, []byte("buckets: [objects]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "tategu is ready", program, "serve", "--config", config, "--data", filepath.Join(data, "d"), "--cache", filepath.Join(data, "c"), "--listen", address)
	return "gs://objects?anonymous=true&endpoint=http://" + address
}

func TestServices(t *testing.T) {
	for name, server := range map[string]func(*testing.T) string{"s3": s3Server, "gs": gsServer} {
		t.Run(name, func(t *testing.T) {
			url := server(t)
			prefix := 0
			fresh := func(t *testing.T) *Content {
				t.Helper()
				prefix++
				return opened(t, fmt.Sprintf("%s&prefix=p%d", url, prefix))
			}
			// The contract's tests run at once, and each waits for those before it to have opened.
			t.Run("contract", func(t *testing.T) {
				contents := make(chan *Content, 64)
				for range cap(contents) {
					contents <- fresh(t)
				}
				blobtest.Run(t, func(t *testing.T) blob.Content { t.Helper(); return <-contents })
			})
			t.Run("contract, small limits", func(t *testing.T) {
				contents := make(chan *Content, 64)
				for range cap(contents) {
					contents <- small(fresh(t))
				}
				blobtest.Run(t, func(t *testing.T) blob.Content { t.Helper(); return <-contents })
			})
			t.Run("large", func(t *testing.T) { large(t, fresh(t)) })
			t.Run("history", func(t *testing.T) { testHistory(t, fresh(t)) })
			t.Run("claim", func(t *testing.T) { testClaim(t, url+"&prefix=claimed") })
			t.Run("missing bucket", func(t *testing.T) {
				_, err := Open(t.Context(), strings.Replace(url, "//objects", "//no-such-bucket", 1), logger(t), time.Now)
				refused(t, err, "no-such-bucket", "does not exist", "credentials come from")
			})
		})
	}
}

// large moves a content of several parts, and one that breaks amid them.
func large(t *testing.T, c *Content) {
	t.Helper()
	const size = 40 << 20
	id, d, err := c.Create(t.Context(), io.LimitReader(zeros{}, size))
	if err != nil || d.Size != size {
		t.Fatalf("%+v, %v", d, err)
	}
	r, err := c.Open(t.Context(), id, 1, -1)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, r)
	if err = errors.Join(err, r.Close()); err != nil || n != size-1 {
		t.Fatalf("read %d, %v", n, err)
	}
	broken := errors.New("broken")
	_, _, err = c.Create(t.Context(), io.MultiReader(io.LimitReader(zeros{}, size), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("Create = %v", err)
	}
	if n, err := c.Append(t.Context(), "upload-0123", 0, io.MultiReader(io.LimitReader(zeros{}, size), failing{broken})); n != size || !errors.Is(err, broken) {
		t.Errorf("Append = %d, %v", n, err)
	}
	seen := 0
	if err := c.Walk(t.Context(), func(string, time.Time) error { seen++; return nil }); err != nil || seen != 2 {
		t.Errorf("%d contents, %v, want 2", seen, err)
	}
	var client *s3.Client
	if !c.bucket.As(&client) {
		return
	}
	uploads, err := client.ListMultipartUploads(t.Context(), &s3.ListMultipartUploadsInput{Bucket: &c.address.Host})
	if err != nil || len(uploads.Uploads) > 0 {
		t.Errorf("unfinished uploads: %v, %v", uploads.Uploads, err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// zeros is an endless file.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// testHistory appends, cuts and merges.
func testHistory(t *testing.T, c *Content) {
	t.Helper()
	c.splitSize, c.fan, c.maxMerged = 40, 3, 30
	want, done, err := play(t, c, fixedHistory())
	if err != nil {
		t.Fatalf("step %d: %v", done, err)
	}
	if got, err := readAll(t, c, id); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read %q, %v, want %q", got, err, want)
	}
	second, err := c.Link(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := readAll(t, c, id); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read after Remove = %v", err)
	}
	if got, err := readAll(t, c, second); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the link reads %q, %v, want %q", got, err, want)
	}
}
