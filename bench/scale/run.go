package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/structpb"

	"tategu/bench/harness"
)

const project = "bench"

func location(project string) string { return "projects/" + project + "/locations/us-central1" }

func jobName(project, id string) string { return location(project) + "/pipelineJobs/" + id }

// The programs. A mark is one byte at the end of a file.
const (
	echoAndMark = `printf x >>"$2"; printf %s "$1" >"$0"`
	onlyEcho    = `printf %s "$1" >"$0"`
)

type object = map[string]any

// container is an executor: a script with the output file, the value and a mark.
func container(script, mark string) object {
	args := []any{"-c", script, "{{$.outputs.parameters['out'].output_file}}", "{{$.inputs.parameters['in']}}"}
	if mark != "" {
		args = append(args, mark)
	}
	return object{"container": object{"image": "bench/shell", "args": args}}
}

func component(executor, typ string) object {
	return object{
		"executorLabel": executor, "inputDefinitions": object{"parameters": object{"in": object{"parameterType": typ}}},
		"outputDefinitions": object{"parameters": object{"out": object{"parameterType": typ}}},
	}
}

func pipeline(name string, components, executors, tasks object) (*structpb.Struct, error) {
	return structpb.NewStruct(object{
		"pipelineInfo": object{"name": name}, "schemaVersion": "2.1.0", "sdkVersion": "kfp-2.14.0", "components": components,
		"deploymentSpec": object{"executors": executors}, "root": object{"dag": object{"tasks": tasks}},
	})
}

// loopOf is a ParallelFor over n numbers as kfp compiles it, with a DAG of one program in
// each iteration, and a task after it that is handed all results.
func loopOf(n int, mark string) (*structpb.Struct, error) {
	numbers := make([]int, n)
	for i := range numbers {
		numbers[i] = i
	}
	items, err := json.Marshal(numbers)
	if err != nil {
		return nil, err
	}
	const item = "pipelinechannel--loop-item-1"
	loop := object{
		"inputDefinitions":  object{"parameters": object{item: object{"parameterType": "NUMBER_INTEGER"}}},
		"outputDefinitions": object{"parameters": object{"step-out": object{"parameterType": "LIST"}}},
		"dag": object{
			"outputs": object{"parameters": object{"step-out": object{"valueFromParameter": object{"producerSubtask": "step", "outputParameterKey": "out"}}}},
			"tasks": object{"step": object{
				"componentRef": object{"name": "comp-step"}, "taskInfo": object{"name": "step"},
				"inputs": object{"parameters": object{"in": object{"componentInputParameter": item}}},
			}},
		},
	}
	tasks := object{
		"for-loop-1": object{
			"componentRef": object{"name": "comp-for-loop-1"}, "taskInfo": object{"name": "for-loop-1"},
			"parameterIterator": object{"itemInput": item, "items": object{"raw": string(items)}},
		},
		"all": object{
			"componentRef": object{"name": "comp-all"}, "taskInfo": object{"name": "all"}, "dependentTasks": []any{"for-loop-1"},
			"inputs": object{"parameters": object{"in": object{"taskOutputParameter": object{"producerTask": "for-loop-1", "outputParameterKey": "step-out"}}}},
		},
	}
	return pipeline("loop",
		object{"comp-step": component("exec-step", "NUMBER_INTEGER"), "comp-all": component("exec-all", "LIST"), "comp-for-loop-1": loop},
		object{"exec-step": container(echoAndMark, mark), "exec-all": container(onlyEcho, "")}, tasks)
}

// chain is n programs in a row, each handed the result of the one before.
func chain(name string, n int, cached bool) (*structpb.Struct, error) {
	tasks := object{}
	for i := range n {
		in := object{"runtimeValue": object{"constant": 7}}
		task := object{
			"componentRef": object{"name": "comp-step"}, "taskInfo": object{"name": fmt.Sprint("step-", i)},
			"cachingOptions": object{"enableCache": cached},
		}
		if i > 0 {
			before := fmt.Sprint("step-", i-1)
			task["dependentTasks"] = []any{before}
			in = object{"taskOutputParameter": object{"producerTask": before, "outputParameterKey": "out"}}
		}
		task["inputs"] = object{"parameters": object{"in": in}}
		tasks[fmt.Sprint("step-", i)] = task
	}
	return pipeline(name, object{"comp-step": component("exec-step", "NUMBER_INTEGER")}, object{"exec-step": container(onlyEcho, "")}, tasks)
}

// submit makes a run.
func (s *server) submit(ctx context.Context, project, id string, spec *structpb.Struct) error {
	_, err := s.jobs.CreatePipelineJob(ctx, &pb.CreatePipelineJobRequest{Parent: location(project), PipelineJobId: id, PipelineJob: &pb.PipelineJob{
		DisplayName: id, PipelineSpec: spec, RuntimeConfig: &pb.PipelineJob_RuntimeConfig{GcsOutputDirectory: "gs://" + project + "-runs/root"},
	}})
	return err
}

// look gives a run without its tasks, and without the pause that a Get may make.
func (s *server) look(ctx context.Context, project, id string) (*pb.PipelineJob, error) {
	resp, err := s.jobs.ListPipelineJobs(ctx, &pb.ListPipelineJobsRequest{
		Parent: location(project), Filter: fmt.Sprintf("display_name=%q", id), PageSize: 1,
		ReadMask: &fieldmaskpb.FieldMask{Paths: []string{"name", "state", "create_time", "start_time", "end_time", "error"}},
	})
	if err != nil {
		return nil, err
	}
	if len(resp.PipelineJobs) == 0 {
		return nil, fmt.Errorf("there is no run %s", id)
	}
	return resp.PipelineJobs[0], nil
}

func finished(s pb.PipelineState) bool {
	return slices.Contains([]pb.PipelineState{
		pb.PipelineState_PIPELINE_STATE_SUCCEEDED, pb.PipelineState_PIPELINE_STATE_FAILED, pb.PipelineState_PIPELINE_STATE_CANCELLED,
	}, s)
}

// wait looks until a run has ended as it should.
func (s *server) wait(ctx context.Context, project, id string, want pb.PipelineState, patience time.Duration) (job *pb.PipelineJob, err error) {
	err = harness.Until(ctx, patience, 100*time.Millisecond, "run "+id+" has ended", func() (bool, error) {
		job, err = s.look(ctx, project, id)
		return err == nil && finished(job.State), err
	})
	if err == nil && job.State != want {
		err = fmt.Errorf("run %s ended as %s: %s", id, job.State, job.GetError().GetMessage())
	}
	return job, err
}

// marks counts the bytes of a file.
func marks(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// files counts what is below a directory, directories included.
func files(dir string) (n int, err error) {
	err = filepath.WalkDir(dir, func(string, os.DirEntry, error) error {
		n++
		return nil // what is removed meanwhile is not there
	})
	return n, err
}

// output gives a parameter that a task wrote, as JSON.
func output(job *pb.PipelineJob, task, parameter string) (string, error) {
	for _, t := range job.GetJobDetail().GetTaskDetails() {
		if t.TaskName != task {
			continue
		}
		text, err := protojson.Marshal(t.GetExecution().GetMetadata().GetFields()["output:"+parameter])
		return string(text), err
	}
	return "", fmt.Errorf("the run has no task %s", task)
}
