package main

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func taskIn(name string, state pb.PipelineTaskDetail_State) *pb.PipelineTaskDetail {
	return &pb.PipelineTaskDetail{TaskUniqueName: name, State: state}
}

// TestBoardInPlace draws twice on a terminal: the second table covers the first.
func TestBoardInPlace(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	fit := taskIn("fit", pb.PipelineTaskDetail_RUNNING)
	fit.StartTime = timestamppb.New(start)
	job := &pb.PipelineJob{JobDetail: &pb.PipelineJobDetail{TaskDetails: []*pb.PipelineTaskDetail{taskIn("run", pb.PipelineTaskDetail_RUNNING), fit, taskIn("score", pb.PipelineTaskDetail_PENDING)}}}
	var out strings.Builder
	b := &board{out: &out, terminal: true}
	if err := b.draw(job, start.Add(2*time.Second)); err != nil {
		t.Fatal(err)
	}
	if want := noWrap + "fit    RUNNING  2s  \nscore  PENDING      \n" + wrap; out.String() != want {
		t.Errorf("first table %q, want %q", out.String(), want)
	}
	out.Reset()
	fit.State, fit.EndTime, fit.Error = pb.PipelineTaskDetail_FAILED, timestamppb.New(start.Add(time.Second)), &spb.Status{Message: "exit code 3\nand more"}
	if err := b.draw(job, start.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if want := "\x1b[2A\x1b[J" + noWrap + "fit    FAILED   1s  exit code 3\nscore  PENDING      \n" + wrap; out.String() != want {
		t.Errorf("second table %q, want %q", out.String(), want)
	}
}

// TestBoardOfMany keeps to a screen, with what runs and what failed in it.
func TestBoardOfMany(t *testing.T) {
	t.Parallel()
	tasks := []*pb.PipelineTaskDetail{taskIn("run", pb.PipelineTaskDetail_RUNNING)}
	for range 100 {
		tasks = append(tasks, taskIn("done", pb.PipelineTaskDetail_SUCCEEDED))
	}
	tasks = append(tasks, taskIn("broken", pb.PipelineTaskDetail_FAILED))
	var out strings.Builder
	b := &board{out: &out, terminal: true}
	if err := b.draw(&pb.PipelineJob{JobDetail: &pb.PipelineJobDetail{TaskDetails: tasks}}, time.Time{}); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if !strings.HasPrefix(text, noWrap+"broken") || !strings.Contains(text, "and 81 more\n") || strings.Count(text, "\n") != b.drawn {
		t.Errorf("drew %d lines:\n%s", b.drawn, text)
	}
}

// TestFailedTasks names tasks, not the graphs around them.
func TestFailedTasks(t *testing.T) {
	t.Parallel()
	root, graph, fit := taskIn("run", pb.PipelineTaskDetail_FAILED), taskIn("loop", pb.PipelineTaskDetail_FAILED), taskIn("loop/fit", pb.PipelineTaskDetail_FAILED)
	root.TaskId, graph.TaskId, fit.TaskId = 1, 2, 3
	graph.ParentTaskId, fit.ParentTaskId = 1, 2
	got := failedTasks(&pb.PipelineJob{JobDetail: &pb.PipelineJobDetail{TaskDetails: []*pb.PipelineTaskDetail{root, graph, fit}}})
	if len(got) != 1 || got[0] != fit {
		t.Errorf("failed: %v", got)
	}
}
