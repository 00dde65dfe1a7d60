package console_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

func taskName(run string, id int64) string { return run + "/tasks/" + strconv.FormatInt(id, 10) }

// parentOf gives the location of a resource.
func parentOf(name string) string { return strings.Join(strings.Split(name, "/")[:4], "/") }

// putRun makes an ended run with tasks of the given names, whose ids count from 1.
func putRun(t *testing.T, rows store.Store, run *pb.PipelineJob, tasks ...string) {
	t.Helper()
	run.EndTime = timestamppb.Now()
	err := rows.Update(t.Context(), func(tx store.Tx) error {
		for i, name := range tasks {
			id := int64(i + 1)
			data, err := json.Marshal(pipeline.Task{ID: id, Path: name, Name: name, Kind: "container"})
			if err != nil {
				return err
			}
			if err := tx.Put(t.Context(), store.Row{Kind: pipeline.KindTasks, Key: taskName(run.Name, id), Parent: run.Name, Data: data}); err != nil {
				return err
			}
		}
		return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindPipelineJobs, Key: run.Name, Parent: parentOf(run.Name)}, run)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFindAcrossProjects: a short name finds what the caller may read and nothing
// else, and says no more of another project's work than of what is not there.
func TestFindAcrossProjects(t *testing.T) {
	t.Parallel()
	rows, o, s := serve(t)
	const mine, theirs = "projects/p/locations/l/", "projects/other/locations/l/"
	ended := timestamppb.Now()
	// Theirs are newer than mine, and so would be found first.
	for _, parent := range []string{mine, theirs} {
		put(t, rows, &pb.CustomJob{Name: parent + "customJobs/7", DisplayName: "nightly", EndTime: ended})
		putRun(t, rows, &pb.PipelineJob{Name: parent + "pipelineJobs/both", DisplayName: "run of both"}, "fit", "score")
	}
	put(t, rows, &pb.CustomJob{Name: theirs + "customJobs/8", DisplayName: "secret job", EndTime: ended})
	putRun(t, rows, &pb.PipelineJob{Name: theirs + "pipelineJobs/hidden", DisplayName: "secret run"}, "secret-task")
	o.logOf = func(name string) string { return "the log of " + name }

	ask := func(name string) (int, string) {
		return get(t, s.URL+"/tategu/v1/logs?"+url.Values{"resource": {name}}.Encode())
	}
	for name, want := range map[string]string{
		"7":                        mine + "customJobs/7",
		"customJobs/7":             mine + "customJobs/7",
		"nightly":                  mine + "customJobs/7",
		"both":                     mine + "pipelineJobs/both",
		"run of both":              mine + "pipelineJobs/both",
		"both/score":               taskName(mine+"pipelineJobs/both", 2),
		"pipelineJobs/both/fit":    taskName(mine+"pipelineJobs/both", 1),
		"fit":                      taskName(mine+"pipelineJobs/both", 1),
		mine + "customJobs/7":      mine + "customJobs/7",
		mine + "pipelineJobs/both": mine + "pipelineJobs/both",
	} {
		if code, text := ask(name); code != http.StatusOK || !strings.Contains(text, "the log of "+want+"\n") {
			t.Errorf("%q: %d %q, want the log of %s", name, code, text, want)
		}
	}
	put(t, rows, &pb.CustomJob{Name: mine + "customJobs/untitled", EndTime: ended})
	for _, name := range []string{"", "/"} {
		if code, text := ask(name); code != http.StatusBadRequest {
			t.Errorf("%q: %d %q, want 400", name, code, text)
		}
	}
	_, nothing := ask("xyz")
	for _, name := range []string{"8", "customJobs/8", "secret job", "hidden", "hidden/secret-task", "secret run", "secret-task"} {
		code, text := ask(name)
		if code != http.StatusNotFound || strings.Contains(text, "other") || strings.ReplaceAll(text, name, "xyz") != nothing {
			t.Errorf("%q: %d %q, want what is said of nothing: %q", name, code, text, nothing)
		}
	}
	for _, name := range []string{theirs + "customJobs/8", theirs + "customJobs/9", theirs + "pipelineJobs/hidden/tasks/1", theirs + "pipelineJobs/none/tasks/1", theirs + "endpoints/1/deployedModels/1"} {
		if code, text := ask(name); code != http.StatusForbidden {
			t.Errorf("%q: %d %q, want 403 whether it is there or not", name, code, text)
		}
		if code, _ := get(t, s.URL+"/tategu/v1/run?resource="+name); code != http.StatusForbidden {
			t.Errorf("run %q: %d, want 403", name, code)
		}
	}
}

// TestLogOfOneTask: ?workload= also reads a program of a part of a resource.
func TestLogOfOneTask(t *testing.T) {
	t.Parallel()
	rows, o, s := serve(t)
	const run = "projects/p/locations/l/pipelineJobs/r"
	putRun(t, rows, &pb.PipelineJob{Name: run}, "fit")
	o.add(taskName(run, 1)+"|w", "fitted\n")
	if code, text := get(t, s.URL+"/tategu/v1/logs?follow=1&workload=w&resource=r/fit"); code != http.StatusOK || text != "fitted\n" {
		t.Errorf("%d %q", code, text)
	}
}

// TestFollowBreaksOff: what goes wrong while a log is followed breaks the answer off.
// Its words would be taken for the program's.
func TestFollowBreaksOff(t *testing.T) {
	t.Parallel()
	rows, o, s := serve(t)
	put(t, rows, &pb.CustomJob{Name: job, State: pb.JobState_JOB_STATE_RUNNING})
	o.add(job+"|w", "one\n")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/tategu/v1/logs?follow=1&workload=w&resource="+job, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read in full below
	err = rows.Update(context.WithoutCancel(t.Context()), func(tx store.Tx) error { return tx.Delete(t.Context(), resource.KindCustomJobs, job) })
	if err != nil {
		t.Fatal(err)
	}
	if text, err := readAll(resp); err == nil || strings.TrimPrefix(text, "one\n") != "" {
		t.Errorf("%q, %v; want the program's words alone, and an error", text, err)
	}
}

// TestRecentOfMany: what others started last does not hide what the caller has.
func TestRecentOfMany(t *testing.T) {
	t.Parallel()
	rows, _, s := serve(t)
	put(t, rows, &pb.CustomJob{Name: job, DisplayName: "mine"})
	err := rows.Update(t.Context(), func(tx store.Tx) error {
		for i := range 150 {
			theirs := &pb.CustomJob{Name: "projects/other/locations/l/customJobs/" + strconv.Itoa(i), DisplayName: "theirs"}
			if err := store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindCustomJobs, Key: theirs.Name, Parent: parentOf(theirs.Name)}, theirs); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/", "/tategu/v1/status"} {
		if code, text := get(t, s.URL+path); code != http.StatusOK || !strings.Contains(text, "mine") || strings.Contains(text, "theirs") || strings.Contains(text, "other") {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
}

// TestFollowEndsWithTheServer: a log that is followed does not keep a server that goes
// down, and is not told as if it were whole.
func TestFollowEndsWithTheServer(t *testing.T) {
	t.Parallel()
	rows, o, s, end := serveUntil(t)
	put(t, rows, &pb.CustomJob{Name: job, State: pb.JobState_JOB_STATE_RUNNING})
	o.add(job+"|w", "one\n")
	o.logOf = func(string) string { return "one" }
	following := func(query string) io.ReadCloser {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+"/tategu/v1/logs?follow=1&"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Body
	}
	one, all := following("workload=w&resource="+job), following("resource="+job)
	end()
	for _, body := range []io.ReadCloser{one, all} {
		if text, err := io.ReadAll(body); err == nil || !strings.HasSuffix(string(text), "one\n") {
			t.Errorf("%q, %v; want an answer that broke off", text, err)
		}
		_ = body.Close() // read in full
	}
}
