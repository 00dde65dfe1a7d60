package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"tategu/internal/app"
)

// runRequests starts a server, sets it up, and sends the mutations.
func runRequests(ctx context.Context, o options, r *report) (err error) {
	names, err := app.Served(ctx)
	if err != nil {
		return err
	}
	served := map[string]bool{}
	for _, name := range names {
		served[name] = true
	}
	s, err := startServer(ctx, o.binary)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := s.stop(); stopErr != nil && ctx.Err() == nil {
			r.fail("the server ended badly: "+stopErr.Error(), "", "")
		}
	}()
	t := &trial{options: o, report: r, server: s, client: newClient(s.address), judge: newJudge(served)}
	if err := t.setup(ctx, served); err != nil {
		return err
	}
	before, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	if err := t.all(ctx); err != nil {
		return err
	}
	t.afterwards(before)
	return nil
}

// trial is one run against one server.
type trial struct {
	options   options
	report    *report
	server    *server
	client    *client
	judge     *judge
	generator *generator
	large     sync.Mutex // held for bodies that take much memory by right
}

// setup sends what everything else builds on.
func (t *trial) setup(ctx context.Context, served map[string]bool) error {
	setup, seeds, err := loadCorpus()
	if err != nil {
		return err
	}
	vars := variables{}
	for _, s := range setup {
		s = vars.apply(s)
		a, err := t.client.send(ctx, &request{method: s.method, target: s.target, proto: "HTTP/1.1", header: s.header, body: s.body, length: -1})
		if err != nil {
			return fmt.Errorf("setup, %s: %w", s.title, err)
		}
		if a.status/100 != 2 {
			return fmt.Errorf("setup, %s: status %d: %s", s.title, a.status, a.body)
		}
		if err := s.capture(vars, a.header, a.body); err != nil {
			return err
		}
	}
	t.generator = &generator{seed: t.options.seed, seeds: seeds, auto: boundMethods(served), vars: vars}
	return nil
}

// all sends the requests of the range, several at a time.
func (t *trial) all(ctx context.Context) error {
	ids := make(chan int)
	var wg sync.WaitGroup
	for range max(1, t.options.workers) {
		wg.Go(func() {
			for id := range ids {
				t.one(ctx, id)
			}
		})
	}
	first, end := t.options.first, t.options.count
	if t.options.only >= 0 {
		first, end = t.options.only, t.options.only+1
	}
	for id := first; id < end && ctx.Err() == nil && t.server.alive(); id++ {
		ids <- id
	}
	close(ids)
	wg.Wait()
	if !t.server.alive() {
		t.report.fail("the server is dead", "", "")
	}
	return ctx.Err()
}

// large is the size from which bodies are sent one at a time, so that the bound
// on memory is one for a single request.
const large = 256 << 10

func (t *trial) one(ctx context.Context, id int) {
	q := t.generator.request(id)
	if len(q.body) > large || q.get("Content-Encoding") == "gzip" || q.get("grpc-encoding") == "gzip" {
		t.large.Lock()
		defer t.large.Unlock()
	}
	if t.options.peaks {
		defer t.watchMemory(q)()
	}
	began := time.Now()
	a, err := t.client.send(ctx, q)
	if ctx.Err() != nil {
		return
	}
	took := time.Since(began)
	what := ""
	switch {
	case err != nil && q.loose && took < patience:
		t.report.count("closed") // by a server that could make nothing of it
	case err != nil:
		what = err.Error()
	case q.grpc:
		what = t.judge.grpc(q, a, t.report)
	default:
		what = t.judge.http(q, a, t.report)
	}
	if t.options.verbose {
		status, body := 0, []byte(nil)
		if a != nil {
			status, body = a.status, a.body
		}
		t.report.notef("%d %d %.1fs %s\n  %s", id, status, took.Seconds(), q.describe(), clip(body, 300))
	}
	if what != "" {
		t.report.fail(what, fmt.Sprintf("go run ./test/mutate -seed %d -only %d", t.options.seed, id), q.describe())
		return
	}
	t.report.pass()
}

// watchMemory tells afterwards whether a request raised the server's memory.
func (t *trial) watchMemory(q *request) func() {
	before, _ := t.server.memory("VmHWM") // it is only looked at by people
	return func() {
		if after, err := t.server.memory("VmHWM"); err == nil && after-before > 4<<20 {
			t.report.notef("memory %d MB to %d MB by %d: %s; %s; body of %d bytes", before>>20, after>>20, q.id, q.title, strings.Join(q.how, "; "), len(q.body))
		}
	}
}

// heap gives what the server's metrics say of its memory.
func (t *trial) heap() string {
	a, err := t.client.send(context.Background(), &request{method: "GET", target: "/metrics", proto: "HTTP/1.1", length: -1})
	if err != nil {
		return err.Error()
	}
	var out []string
	for line := range strings.SplitSeq(string(a.body), "\n") {
		if strings.HasPrefix(line, "go_memstats_heap") || strings.HasPrefix(line, "go_goroutines") || strings.HasPrefix(line, "go_memstats_stack") || strings.HasPrefix(line, "process_") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// afterwards checks the server itself.
func (t *trial) afterwards(before int64) {
	peak, err := t.server.memory("VmHWM")
	bound := int64(t.options.rssMB) << 20
	switch {
	case err != nil:
		t.report.fail("memory: "+err.Error(), "", "")
	case peak-before > bound:
		t.report.fail(fmt.Sprintf("memory grew from %d MB to %d MB; the bound is +%d MB", before>>20, peak>>20, t.options.rssMB), "", "")
	default:
		t.report.pass()
		t.report.notef("memory: %d MB after setup, %d MB at most; the bound is +%d MB", before>>20, peak>>20, t.options.rssMB)
	}
	if t.options.peaks {
		t.report.notef("%s", t.heap())
	}
	lines, err := t.server.complaints()
	if err != nil {
		lines = append(lines, err.Error())
	}
	for _, line := range lines {
		t.report.fail("the server's log tells of a fault", "", clip([]byte(line), 1500))
	}
	if len(lines) == 0 {
		t.report.pass()
	}
}
