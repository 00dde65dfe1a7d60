//go:build linux

package durability

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"html"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	bucket = "load"
	parent = "/v1/projects/p/locations/us-central1"
)

// content gives the same bytes for the same name and size, and no others.
func content(name string, size int) []byte {
	seed := [32]byte{}
	copy(seed[:], name)
	b := make([]byte, size)
	_, _ = rand.NewChaCha8(seed).Read(b) // never fails
	return b
}

// ledger is what the server has acknowledged.
type ledger struct {
	mu      sync.Mutex
	objects map[string]int    // size by name; content() of both are its bytes
	deleted map[string]bool   // objects whose deletion was acknowledged
	unknown map[string]bool   // objects of which the last change was not answered
	models  map[string]string // display name by resource name
	refused map[string]int    // by kind of request
}

func newLedger() *ledger {
	return &ledger{objects: map[string]int{}, deleted: map[string]bool{}, unknown: map[string]bool{}, models: map[string]string{}, refused: map[string]int{}}
}

func (l *ledger) put(name string, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.objects[name] = size
	delete(l.unknown, name)
}

func (l *ledger) drop(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.objects, name)
	delete(l.unknown, name)
	l.deleted[name] = true
}

// unsure says that a change of name is under way, or that nobody knows how it ended.
func (l *ledger) unsure(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown[name] = true
}

func (l *ledger) refuse(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refused[kind]++
	return l.refused[kind]
}

func (l *ledger) refusals(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.refused[kind]
}

func (l *ledger) names() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(l.objects))
	for name := range l.objects {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// check reads everything that was acknowledged, byte for byte.
func (l *ledger) check(t *testing.T, s *server) {
	t.Helper()
	for _, name := range l.names() {
		l.mu.Lock()
		size, unknown := l.objects[name], l.unknown[name]
		l.mu.Unlock()
		got := s.do(http.MethodGet, objectPath(bucket, name)+"?alt=media", "")
		if !unknown && (got.status != http.StatusOK || !bytes.Equal(got.body, content(name, size))) {
			t.Errorf("%s was acknowledged with %d bytes; read: %d, %d bytes", name, size, got.status, len(got.body))
		}
	}
	for name := range l.deleted {
		if got := s.do(http.MethodGet, objectPath(bucket, name), ""); got.status != http.StatusNotFound {
			t.Errorf("the deletion of %s was acknowledged; read: %s", name, got)
		}
	}
	for name, display := range l.models {
		var m struct{ DisplayName string }
		if got := s.do(http.MethodGet, "/v1/"+name, ""); got.status != http.StatusOK || json.Unmarshal(got.body, &m) != nil || m.DisplayName != display {
			t.Errorf("model %s was acknowledged; read: %s", name, got)
		}
	}
}

// checkWhole reads every object that the server lists and compares it with the
// hash that the server gives: none is torn, acknowledged or not.
func checkWhole(t *testing.T, s *server) (count int) {
	t.Helper()
	token := ""
	for {
		var page struct {
			Items         []struct{ Name, CRC32C string }
			NextPageToken string
		}
		s.get("/storage/v1/b/"+bucket+"/o?pageToken="+url.QueryEscape(token), &page)
		for _, o := range page.Items {
			got := s.do(http.MethodGet, objectPath(bucket, o.Name)+"?alt=media", "")
			sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(got.body, crc32.MakeTable(crc32.Castagnoli)))
			if got.status != http.StatusOK || base64.StdEncoding.EncodeToString(sum) != o.CRC32C {
				t.Errorf("%s is torn: %d, %d bytes", o.Name, got.status, len(got.body))
			}
			count++
		}
		if token = page.NextPageToken; token == "" {
			return count
		}
	}
}

func makeBucket(t *testing.T, s *server) {
	t.Helper()
	if a := s.do(http.MethodPost, "/storage/v1/b?project=p", `{"name":"`+bucket+`"}`); a.status != http.StatusOK {
		t.Fatalf("make a bucket: %s", a)
	}
}

// upload is one of the ways in: simple, multipart or resumable.
type upload func(s *server, name string, data []byte) (answer, error)

func uploads() map[string]upload {
	return map[string]upload{"simple": simple, "multipart": multipart, "resumable": resumable, "parts": parts}
}

// parts uploads by the XML API, in one part.
func parts(s *server, name string, data []byte) (answer, error) {
	path := "/" + bucket + "/" + name
	a, err := s.try(http.MethodPost, path+"?uploads", http.NoBody, "Content-Type", "application/octet-stream")
	if err != nil || a.status != http.StatusOK {
		return a, err
	}
	var begun struct {
		UploadID string `xml:"UploadId"`
	}
	if err := xml.Unmarshal(a.body, &begun); err != nil {
		return a, err
	}
	path += "?uploadId=" + begun.UploadID
	if a, err = s.try(http.MethodPut, path+"&partNumber=1", bytes.NewReader(data)); err != nil || a.status != http.StatusOK {
		return a, err
	}
	list := fmt.Sprintf("<CompleteMultipartUpload><Part><PartNumber>1</PartNumber><ETag>%s</ETag></Part></CompleteMultipartUpload>", html.EscapeString(a.header.Get("ETag")))
	return s.try(http.MethodPost, path, strings.NewReader(list), "Content-Type", "application/xml")
}

func simple(s *server, name string, data []byte) (answer, error) {
	return s.try(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=media&name="+name, bytes.NewReader(data), "Content-Type", "application/octet-stream")
}

func multipart(s *server, name string, data []byte) (answer, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "--cut\r\nContent-Type: application/json\r\n\r\n{\"name\":%q}\r\n--cut\r\nContent-Type: application/octet-stream\r\n\r\n", name)
	b.Write(data)
	b.WriteString("\r\n--cut--\r\n")
	return s.try(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=multipart", &b, "Content-Type", `multipart/related; boundary=cut`)
}

// resumable sends pieces of 256 KiB.
func resumable(s *server, name string, data []byte) (answer, error) {
	a, err := s.try(http.MethodPost, "/upload/storage/v1/b/"+bucket+"/o?uploadType=resumable&name="+name, strings.NewReader("{}"))
	if err != nil || a.status != http.StatusOK {
		return a, err
	}
	at, err := url.Parse(a.header.Get("Location"))
	if err != nil {
		return a, err
	}
	const piece = 256 << 10
	for from := 0; ; from += piece {
		to := min(from+piece, len(data))
		r := fmt.Sprintf("bytes %d-%d/%d", from, to-1, len(data))
		if len(data) == 0 {
			r = "bytes */0"
		}
		a, err = s.try(http.MethodPut, at.RequestURI(), bytes.NewReader(data[from:to]), "Content-Range", r)
		if err != nil || a.status != http.StatusPermanentRedirect {
			return a, err
		}
	}
}

// poll asks until ok, or for a minute; it gives whether that was so.
func poll(ctx context.Context, ok func() bool) bool {
	limit := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// waitConfig maps the image wait:1 to a program that ends when the file named by
// its argument exists.
const waitConfig = `images:
  - match: "wait*"
    command: ["sh", "-c", "echo waiting; while [ ! -e \"$0\" ]; do sleep 0.05; done; echo done"]
`

// waitPipeline is a run of tasks one after the other, each waiting for flag.
func waitPipeline(flag string, tasks int) string {
	type object = map[string]any
	dag := object{}
	for i := range tasks {
		task := object{"componentRef": object{"name": "comp-wait"}, "taskInfo": object{"name": fmt.Sprintf("wait-%d", i)}}
		if i > 0 {
			task["dependentTasks"] = []string{fmt.Sprintf("wait-%d", i-1)}
		}
		dag[fmt.Sprintf("wait-%d", i)] = task
	}
	text, _ := json.Marshal(object{ // plain maps
		"displayName": "waiter",
		"pipelineSpec": object{
			"pipelineInfo": object{"name": "waiter"}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.17.0",
			"components":     object{"comp-wait": object{"executorLabel": "exec-wait"}},
			"deploymentSpec": object{"executors": object{"exec-wait": object{"container": object{"image": "wait:1", "args": []string{flag}}}}},
			"root":           object{"dag": object{"tasks": dag}},
		},
		"runtimeConfig": object{"gcsOutputDirectory": "gs://" + bucket + "/root"},
	})
	return string(text)
}

func waitJob(flag string) string {
	return fmt.Sprintf(`{"displayName":"waiter","jobSpec":{"workerPoolSpecs":[{"machineSpec":{"machineType":"n1-standard-4"},"replicaCount":1,"containerSpec":{"imageUri":"wait:1","args":[%q]}}]}}`, flag)
}

// created posts a resource and gives its name.
func created(t *testing.T, s *server, collection, body string) string {
	t.Helper()
	var r struct{ Name string }
	s.do(http.MethodPost, parent+"/"+collection, body).decode(t, &r)
	return r.Name
}

// reaches waits until a resource is in a state.
func reaches(t *testing.T, s *server, name, state string) {
	t.Helper()
	var last answer
	ok := poll(t.Context(), func() bool {
		var err error
		var r struct{ State string }
		last, err = s.try(http.MethodGet, "/v1/"+name, http.NoBody)
		return err == nil && json.Unmarshal(last.body, &r) == nil && strings.HasSuffix(r.State, "_"+state)
	})
	if !ok {
		t.Errorf("%s is not %s: %s", name, state, last)
	}
}
