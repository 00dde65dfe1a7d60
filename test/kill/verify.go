package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"tategu/internal/blob"
	"tategu/internal/blob/disk"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// verify checks everything once the load has ended: first through the API, then
// the processes and, after the server's end, the data directory.
func (l *loop) verify(ctx context.Context) {
	for _, step := range []struct {
		what string
		do   func(context.Context) error
	}{
		{"batch prediction jobs", l.verifyBatches},
		{"objects", l.verifyObjects},
		{"tasks", l.verifyTasks},
		{"schedules", l.ticks.end},
		{"flows", l.verifyFlows},
		{"endpoints", l.verifyEndpoints},
		{"processes", l.verifyProcesses},
		{"data directory", l.verifyData},
		{"server log", l.verifyLog},
	} {
		if err := step.do(ctx); err != nil {
			l.book.problem("check of the %s: %v", step.what, err)
		}
	}
}

// verifyBatches waits for jobs whose submission was cut off, and counts all.
func (l *loop) verifyBatches(ctx context.Context) error {
	for page := ""; ; {
		var list struct {
			BatchPredictionJobs []batchDetail
			NextPageToken       string
		}
		if _, err := l.client.get(ctx, api+"batchPredictionJobs?pageSize=100&pageToken="+page, &list); err != nil {
			return err
		}
		for _, job := range list.BatchPredictionJobs {
			if err := l.batches.follow(ctx, "/v1/"+job.Name, strings.HasPrefix(job.Model, l.batches.native)); err != nil {
				return err
			}
		}
		if page = list.NextPageToken; page == "" {
			return nil
		}
	}
}

// verifyObjects reads every object of the ledgers, and lists for others.
func (l *loop) verifyObjects(ctx context.Context) error {
	known := map[string]bool{}
	for _, o := range l.objects {
		for key, e := range o.names {
			if err := errors.Join(o.read(ctx, e), o.readVersions(ctx, e)); err != nil {
				return err
			}
			known[key] = !e.acked.deleted
		}
	}
	for _, bucket := range []string{firstBucket, secondBucket} {
		for page := ""; ; {
			var list struct {
				Items         []struct{ Name string }
				NextPageToken string
			}
			if _, err := l.client.get(ctx, "/storage/v1/b/"+bucket+"/o?prefix=w&maxResults=50&pageToken="+page, &list); err != nil {
				return err
			}
			for _, item := range list.Items {
				key := bucket + "/" + item.Name
				if !known[key] {
					l.book.problem("gs://%s is listed and was never written, or its removal was acknowledged", key)
				}
				delete(known, key)
			}
			if page = list.NextPageToken; page == "" {
				break
			}
		}
	}
	for key, there := range known {
		if there {
			l.book.isLost("gs://%s is there and not listed", key)
		}
	}
	return nil
}

// verifyTasks compares the ledger of the tasks with the API.
func (l *loop) verifyTasks(ctx context.Context) error {
	ledger, err := readLedger(l.server.ledger)
	if err != nil {
		return err
	}
	programs := len(ledger.begun)
	l.runs.check(ledger)
	if err := l.jobs.check(ctx, ledger); err != nil {
		return err
	}
	ledger.rest(l.book)
	for replica, starts := range ledger.replicas {
		// A batch prediction job that a kill caught before its end was written starts
		// again, with replicas of the same names; deployments never do.
		if starts > 1 && strings.HasPrefix(replica, "replica-") {
			l.book.isDouble("replica %s was started %d times", replica, starts)
		}
	}
	// The deployment that lives through all kills keeps its first replica.
	if ledger.replicas["replica-4901-0-1"] != 1 || ledger.replicas["replica-4901-0-2"] != 0 {
		l.book.isDouble("the replica of the long-lived deployment was started anew: %v", ledger.replicas)
	}
	if l.adopted < ledger.across {
		l.book.problem("programs went on over a kill %d times, and the servers say that they took over %d", ledger.across, l.adopted)
	}
	if ledger.across == 0 {
		l.book.problem("no program ran while the server was killed: the loop shows nothing")
	}
	l.book.say("%d runs and %d custom jobs with %d programs, which went on over a kill %d times; %d batch prediction jobs, %d predictions; %d uploads resumed, %d calls cut off",
		len(l.runs.ended), len(l.jobs.acked), programs, ledger.across, l.batches.ended, l.batches.predicted, l.resumed(), l.book.settled.Load())
	return nil
}

// verifyFlows reads every flow again: nothing in it has changed since its end, and
// no program has run since.
func (l *loop) verifyFlows(ctx context.Context) error {
	ledger, err := readTraces(l.server.flows)
	if err != nil {
		return err
	}
	known := map[string]bool{}
	for _, id := range slices.Sorted(maps.Keys(l.flows.judged)) {
		r := l.flows.judged[id]
		for _, t := range r.detail.JobDetail.TaskDetails {
			for _, w := range t.workloads() {
				known[w] = true
			}
		}
		for _, problem := range r.judge(ledger) {
			l.book.problem("run %s of %s, at the end: %s", id, r.pipeline, problem)
		}
		if l.flows.deleted[id] {
			if err := l.flows.isGone(ctx, id); err != nil {
				return err
			}
			continue
		}
		now := &flowDetail{}
		if _, err := l.client.get(ctx, api+"pipelineJobs/"+id, now); err != nil {
			return err
		}
		if !reflect.DeepEqual(now, r.detail) {
			l.book.problem("run %s of %s changed after its end", id, r.pipeline)
		}
	}
	for w, t := range ledger {
		if !known[w] {
			l.book.isDouble("%s of run %s ran and the API does not show it: %+v", w, t.run, t)
		}
	}
	l.book.say("%d flows ended: %v; %d programs, killed: %v", len(l.flows.judged), l.flows.counts, len(ledger), l.striker.kills)
	return nil
}

func (l *loop) resumed() int {
	n := 0
	for _, o := range l.objects {
		n += o.resumed
	}
	return n
}

// verifyEndpoints finds the deployments again, and takes them off.
func (l *loop) verifyEndpoints(ctx context.Context) error {
	for endpoint, id := range map[string]string{"900": "4900", "901": "4901"} {
		there, err := l.batches.deployed(ctx, endpoint, id)
		if err != nil {
			return err
		}
		if !there {
			l.book.isLost("deployed model %s is not on endpoint %s any more", id, endpoint)
			continue
		}
		if err := l.batches.undeploy(ctx, endpoint, id); err != nil {
			return err
		}
	}
	return nil
}

// verifyProcesses waits for what the server still puts away.
func (l *loop) verifyProcesses(ctx context.Context) error {
	workloads := filepath.Join(l.server.data, "workloads")
	var left []process
	var dirs []os.DirEntry
	for began := time.Now(); time.Since(began) < 30*time.Second; {
		var err error
		if dirs, err = os.ReadDir(workloads); err != nil {
			return err
		}
		dirs = slices.DeleteFunc(dirs, func(d os.DirEntry) bool {
			return slices.Contains([]string{".spare", ".layers", ".nest"}, d.Name()) // what the next workloads take over
		})
		left = l.server.children()
		// One wrapper waits for the next program; those of killed servers have ended.
		if i := slices.IndexFunc(left, func(p process) bool { return strings.Contains(p.what, " --wait ") }); i >= 0 {
			left = slices.Delete(left, i, i+1)
		}
		if len(left) == 0 && len(dirs) == 0 {
			break
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, l.server.data) {
			l.book.problem("a mount is left: %s", strings.TrimSpace(line))
		}
	}
	for _, p := range left {
		l.book.problem("process %d is left: %s", p.pid, p.what)
	}
	for _, d := range dirs {
		l.book.problem("the working directory %s is left", d.Name())
	}
	return nil
}

// verifyData stops the server and looks into its data directory: once the sweep
// has run, each content has a row and each row its content.
func (l *loop) verifyData(ctx context.Context) error {
	if err := l.server.stop(); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	rows, err := sqlite.Open(ctx, filepath.Join(l.server.data, "state.db"))
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // only read
	content, err := disk.Open(filepath.Join(l.server.data, "objects"))
	if err != nil {
		return err
	}
	swept, err := blob.New(rows, content, time.Now).Sweep(ctx, 0)
	if err != nil {
		return err
	}
	files, err := contents(ctx, rows, content)
	if err != nil {
		return err
	}
	named, err := namedContents(ctx, rows)
	if err != nil {
		return err
	}
	for id, what := range named {
		if !files[id] && what != "" {
			l.book.isLost("%s has no content: %s", what, id)
		}
		delete(files, id)
	}
	for id := range files {
		l.book.problem("content %s belongs to no row", id)
	}
	l.book.say("after the sweep of %d contents: %d rows with content", swept.Contents, len(named))
	return nil
}

// verifyLog reads what the servers complained of.
func (l *loop) verifyLog(context.Context) error {
	text, err := os.ReadFile(l.server.log.Name())
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		if bytes.Contains(line, []byte("level=ERROR")) || bytes.Contains(line, []byte("panic:")) {
			l.book.problem("the server logged: %.400s", bytes.TrimSpace(line))
		}
	}
	return nil
}

// contents gives the ids of all byte strings: files, and rows for small ones.
// Streams of logs are not among them; they are named by what they belong to.
func contents(ctx context.Context, rows store.Store, content *disk.Content) (map[string]bool, error) {
	found := map[string]bool{}
	err := content.Walk(ctx, func(id string, _ time.Time) error {
		if !strings.HasPrefix(id, "log-") {
			found[id] = true
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	small, err := rows.List(ctx, store.Query{Kind: "content"})
	for _, row := range small {
		found[row.Key] = true
	}
	return found, err
}

// namedContents gives the ids that rows name, and whose they are: "" where bytes
// need not have come yet.
func namedContents(ctx context.Context, rows store.Store) (map[string]string, error) {
	named := map[string]string{}
	for _, kind := range []store.Kind{"object", "objectVersion", "objectSoft", "upload", "uploadPart"} {
		list, err := rows.List(ctx, store.Query{Kind: kind})
		if err != nil {
			return nil, err
		}
		for _, row := range list {
			what := string(kind) + " " + row.Key
			if kind == "upload" {
				what = ""
			}
			if row.State != "" {
				named[row.State] = what
			}
		}
	}
	return named, nil
}
