package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// sendSpecs sends mutated pipelines to a real server: none is answered with a fault
// of the server's own, and every run that comes of one ends.
func sendSpecs(ctx context.Context, o options, r *report) error {
	specs, err := loadSpecs(o.shared)
	if err != nil {
		return err
	}
	if len(specs) == 0 {
		return errors.New("no pipeline specs to mutate")
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
	before, err := s.memory("VmRSS")
	if err != nil {
		return err
	}
	t := &trial{options: o, report: r, server: s, client: newClient(s.address), judge: newJudge(nil)}
	idle, err := t.live(ctx)
	if err != nil {
		return err
	}
	r.notef("pipeline specs: %d to mutate and to send", len(specs))
	ids := make(chan int)
	var wg sync.WaitGroup
	for range max(1, o.workers) {
		wg.Go(func() {
			for n := range ids {
				t.sendSpec(ctx, specs, n)
			}
		})
	}
	for n := 0; n < o.specs && ctx.Err() == nil && s.alive(); n++ {
		ids <- n
	}
	close(ids)
	wg.Wait()
	if !s.alive() {
		r.fail("the server is dead", "", "")
		return ctx.Err()
	}
	if err := t.runsEnd(ctx); err != nil {
		r.fail(err.Error(), "", "")
	}
	if err := t.nothingLeft(ctx, idle); err != nil {
		r.fail(err.Error(), "", "")
	}
	t.options.rssMB = max(t.options.rssMB, mutatedMB) // pipelines may hold more values than other requests
	t.afterwards(before)
	return ctx.Err()
}

const jobsPath = "/v1/" + parent + "/pipelineJobs"

// sendSpec creates a run of one spec. Some are cancelled at once, others may end.
func (t *trial) sendSpec(ctx context.Context, specs [][]byte, n int) {
	rnd := rand.New(rand.NewPCG(t.options.seed, 1<<32+uint64(n))) //nolint:gosec // G404: seeded on purpose
	text, how := specs[rnd.IntN(len(specs))], "as it is"
	if n >= len(specs) {
		text, how = mutateSpec(rnd, text)
	}
	if len(text) > large {
		t.large.Lock()
		defer t.large.Unlock()
	}
	id := fmt.Sprintf("spec-%d", n)
	given := "{}"
	if bytes.Contains(text, []byte(`"parameters":{"s":{`)) || bytes.Contains(text, []byte(`"parameters": {"s": {`)) {
		given = `{"s":"x"}` // of the corpus's own pipelines
	}
	body := append([]byte(`{"displayName":"mutated","runtimeConfig":{"gcsOutputDirectory":"gs://specs/root","parameterValues":`+given+`},"pipelineSpec":`), text...)
	a, err := t.post(ctx, jobsPath+"?pipelineJobId="+id, append(body, '}'))
	if ctx.Err() != nil {
		return
	}
	what := ""
	if err != nil {
		what = err.Error()
	} else {
		what = t.judge.http(&request{method: http.MethodPost}, a, t.report)
	}
	if what != "" {
		t.report.fail(what, fmt.Sprintf("go run ./test/mutate -n 0 -specs %d -send -seed %d (spec %d)", t.options.specs, t.options.seed, n), how+"\n"+clip(text, 3000))
		return
	}
	t.report.pass()
	if a.status == http.StatusOK && (n%2 == 0 || len(text) > large) {
		if _, err := t.post(ctx, jobsPath+"/"+id+":cancel", []byte("{}")); err != nil && ctx.Err() == nil {
			t.report.fail("cancel: "+err.Error(), "", "")
		}
	}
}

func (t *trial) post(ctx context.Context, target string, body []byte) (*answer, error) {
	return t.client.send(ctx, &request{method: http.MethodPost, target: target, proto: "HTTP/1.1", header: [][2]string{{"Content-Type", "application/json"}}, body: body, length: -1})
}

// runsEnd waits until every run has ended: what has not by itself is cancelled.
func (t *trial) runsEnd(ctx context.Context) error {
	deadline, cancelled := time.Now().Add(5*patience), map[string]bool{}
	for {
		const open = "?pageSize=100&readMask=name,state&filter=state%3D%22PIPELINE_STATE_RUNNING%22%20OR%20state%3D%22PIPELINE_STATE_PENDING%22%20OR%20state%3D%22PIPELINE_STATE_CANCELLING%22"
		a, err := t.client.send(ctx, &request{method: http.MethodGet, target: jobsPath + open, proto: "HTTP/1.1", length: -1})
		if err != nil {
			return err
		}
		var page struct {
			PipelineJobs []struct{ Name, State string }
		}
		if err := json.Unmarshal(a.body, &page); err != nil || a.status != http.StatusOK {
			return fmt.Errorf("list the runs: status %d: %s", a.status, clip(a.body, 500))
		}
		if len(page.PipelineJobs) == 0 {
			t.report.notef("every run has ended, %d of them by a second cancel", len(cancelled))
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d runs do not end, such as %s (%s)", len(page.PipelineJobs), page.PipelineJobs[0].Name, page.PipelineJobs[0].State)
		}
		for _, job := range page.PipelineJobs {
			if time.Until(deadline) < 4*patience && !cancelled[job.Name] { // they had a minute
				cancelled[job.Name] = true
				if _, err := t.post(ctx, "/v1/"+job.Name+":cancel", []byte("{}")); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// nothingLeft fails when the server still holds memory of runs that are over. A
// collection without any need of one comes every two minutes.
func (t *trial) nothingLeft(ctx context.Context, idle int64) error {
	bound := idle + leftMB<<20
	deadline := time.Now().Add(3 * patience)
	for {
		live, err := t.live(ctx)
		if err != nil {
			return err
		}
		if live <= bound {
			t.report.pass()
			t.report.notef("memory live after all runs: %d MB; the bound is %d MB", live>>20, bound>>20)
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d MB are live after all runs; the bound is %d MB", live>>20, bound>>20)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// live gives the bytes that were live at the last collection: the next one is due at
// twice as many (GOGC=100).
func (t *trial) live(ctx context.Context) (int64, error) {
	a, err := t.client.send(ctx, &request{method: http.MethodGet, target: "/metrics", proto: "HTTP/1.1", length: -1})
	if err != nil {
		return 0, err
	}
	_, rest, ok := bytes.Cut(a.body, []byte("\ngo_memstats_next_gc_bytes "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	next, err := strconv.ParseFloat(string(line), 64)
	if !ok || err != nil {
		return 0, fmt.Errorf("the metrics do not tell when the next collection is: %q", clip(line, 100))
	}
	return int64(next) / 2, nil
}
