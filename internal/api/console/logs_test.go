package console_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tategu/internal/api/console"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const job = "projects/p/locations/l/customJobs/1"

// output is the log of one program, which grows.
type output struct {
	mu    sync.Mutex
	texts map[string]string
	logOf func(name string) string // unless nil, what the one stream of a resource says
}

func (o *output) add(stream, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.texts[stream] += text
}

func (o *output) Streams(_ context.Context, name string) ([]console.Stream, error) {
	if o.logOf == nil {
		return nil, nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.texts[name+"|all"] = o.logOf(name) + "\n"
	return []console.Stream{{ID: name + "|all", Label: "all"}}, nil
}

func (o *output) Workloads(_ context.Context, name string) ([]console.Workload, error) {
	return []console.Workload{{ID: "w", Phase: "QUEUED", Queue: &console.Queue{Position: 2, Length: 5, Waits: "1 GPU"}}}, nil
}

func (o *output) Read(_ context.Context, stream string, offset int64, limit int) ([]byte, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := o.texts[stream]
	text = text[min(int(offset), len(text)):]
	return []byte(text[:min(limit, len(text))]), nil
}

func (o *output) Size(_ context.Context, stream string) (int64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return int64(len(o.texts[stream])), nil
}

// readers may see project p.
type readers struct{}

// idle is a machine on which nothing waits.
type idle struct{}

func (idle) Waits(string) bool                  { return false }
func (idle) Place(string) (runtime.Queue, bool) { return runtime.Queue{}, false }
func (idle) Load() console.Load                 { return console.Load{} }

func (readers) Authorize(_ context.Context, _ identity.Principal, project, _ string) error {
	if project != "p" {
		return resource.Errorf(codes.PermissionDenied, "no")
	}
	return nil
}

func serve(t *testing.T) (store.Store, *output, *httptest.Server) {
	t.Helper()
	rows, o, s, _ := serveUntil(t)
	return rows, o, s
}

// serveUntil gives what ends whatever follows a log, too.
func serveUntil(t *testing.T) (store.Store, *output, *httptest.Server, func()) {
	t.Helper()
	rows, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rows.Close(); err != nil {
			t.Error(err)
		}
	})
	o := &output{texts: map[string]string{}}
	s, end := over(t, rows, o)
	return rows, o, s, end
}

// another serves the same rows: it is what comes after a server that was killed.
func another(t *testing.T, rows store.Store, o *output) *httptest.Server {
	t.Helper()
	s, _ := over(t, rows, o)
	return s
}

func over(t *testing.T, rows store.Store, o *output) (*httptest.Server, func()) {
	t.Helper()
	c, err := console.New(rows, readers{}, o, idle{}, "v", func() []string { return nil }, slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewServer(c)
	ctx, end := context.WithCancel(context.WithoutCancel(t.Context()))
	running := make(chan error, 1)
	go func() { running <- c.Run(ctx) }()
	t.Cleanup(func() {
		end()
		if err := <-running; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return s, end
}

func put(t *testing.T, rows store.Store, j *pb.CustomJob) {
	t.Helper()
	err := rows.Update(t.Context(), func(tx store.Tx) error {
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindCustomJobs, Key: j.Name, Parent: parentOf(j.Name), State: j.State.String()}, j)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	text, err := readAll(resp)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, text
}

func readAll(resp *http.Response) (string, error) {
	text, err := io.ReadAll(resp.Body)
	return string(text), err
}

// TestFollowOne: the output of one program comes as it is made, byte for byte, from
// an offset, until its job has ended.
func TestFollowOne(t *testing.T) {
	t.Parallel()
	rows, o, s := serve(t)
	put(t, rows, &pb.CustomJob{Name: job, State: pb.JobState_JOB_STATE_RUNNING})
	o.add(job+"|w", "one\n")
	o.add("projects/other/locations/l/customJobs/1|w", "secret")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/tategu/v1/logs?follow=1&workload=w&offset=2&resource="+job, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	first := make([]byte, 2)
	if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "e\n" {
		t.Fatalf("first %q, %v", first, err)
	}
	o.add(job+"|w", "two\x00\xff\n")
	second := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, second); err != nil || string(second) != "two\x00\xff\n" {
		t.Fatalf("while it runs %q, %v", second, err)
	}
	o.add(job+"|w", "last")
	put(t, rows, &pb.CustomJob{Name: job, State: pb.JobState_JOB_STATE_FAILED, EndTime: timestamppb.Now()})
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "last" {
		t.Fatalf("at the end %q, %v", rest, err)
	}
	for query, want := range map[string]struct {
		code int
		text string
	}{
		"workload=w&resource=" + job:                                              {200, "one\ntwo\x00\xff\nlast"},
		"workload=other&resource=" + job:                                          {200, ""},
		"workload=w&offset=-1&resource=" + job:                                    {400, "number of bytes"},
		"workload=w&resource=projects/other/locations/l/customJobs/1":             {403, "no"},
		"workload=w&resource=projects/p/locations/l/customJobs/2":                 {404, "not found"},
		"workload=w&follow=1&offset=100&resource=projects/p/locations/l/models/x": {404, "not found"},
	} {
		if code, text := get(t, s.URL+"/tategu/v1/logs?"+query); code != want.code || !strings.Contains(text, want.text) || want.text == "" && text != "" {
			t.Errorf("%s: %d %q, want %d %q", query, code, text, want.code, want.text)
		}
	}
}

func TestWorkloads(t *testing.T) {
	t.Parallel()
	rows, _, s := serve(t)
	put(t, rows, &pb.CustomJob{Name: job, State: pb.JobState_JOB_STATE_PENDING})
	code, text := get(t, s.URL+"/tategu/v1/workloads?resource="+job)
	var reply struct {
		State     string
		Workloads []console.Workload
	}
	if err := json.Unmarshal([]byte(text), &reply); err != nil || code != 200 || reply.State != "JOB_STATE_PENDING" || len(reply.Workloads) != 1 || reply.Workloads[0].Queue.Position != 2 {
		t.Errorf("%d %s, %v", code, text, err)
	}
	if code, _ := get(t, s.URL+"/tategu/v1/workloads?resource=projects/other/locations/l/customJobs/1"); code != http.StatusForbidden {
		t.Errorf("another project: %d", code)
	}
}
