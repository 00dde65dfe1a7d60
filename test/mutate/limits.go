package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
)

// runLimits sends pipelines just beyond each bound, in three ways, and a few that
// are as large as they may be. A refusal names the bound, and costs no memory that
// grows with what the spec would take when decoded.
func runLimits(ctx context.Context, o options, r *report) error {
	s, err := startServer(ctx, o.binary)
	if err != nil {
		return err
	}
	defer func() {
		if stopErr := s.stop(); stopErr != nil && ctx.Err() == nil {
			r.fail("the server ended badly: "+stopErr.Error(), "", "")
		}
	}()
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the server ends anyway
	l := &limits{options: o, report: r, server: s, grpc: pb.NewPipelineServiceClient(conn)}
	for _, c := range beyond() {
		for _, way := range []string{"REST", "gRPC", "submit"} {
			if err := l.refused(ctx, way, c); err != nil {
				return err
			}
		}
	}
	for _, c := range within() {
		for _, way := range []string{"REST", "gRPC"} {
			if err := l.accepted(ctx, way, c); err != nil {
				return err
			}
		}
	}
	lines, err := s.complaints()
	for _, line := range lines {
		r.fail("the server's log tells of a fault", "", clip([]byte(line), 1500))
	}
	return err
}

// limits is one server that gets pipelines at the bounds.
type limits struct {
	options options
	report  *report
	server  *server
	grpc    pb.PipelineServiceClient
}

// bounded is a pipeline and what becomes of it.
type bounded struct {
	name   string
	spec   []byte
	values map[string]any // parameters of the run
	want   string         // in the refusal, or in the error of the run; "" = none
	runs   bool           // wait for the run's end
}

const bodyOf = `{"schemaVersion":"2.1.0","pipelineInfo":{"name":"bound"},"deploymentSpec":{"executors":{"e":{"container":{"image":"i","command":["c"]}}}},` +
	`"root":{"inputDefinitions":{"parameters":{"items":{"parameterType":"LIST","isOptional":true}}},"dag":{"tasks":{%s}}},` +
	`"components":{"c":{"executorLabel":"e","inputDefinitions":{"parameters":{"p":{"parameterType":"STRING","isOptional":true}}}}%s}}`

// pipelineOf makes a spec of its tasks, and components besides c.
func pipelineOf(tasks []string, components ...string) []byte {
	more := strings.Join(append([]string{""}, components...), ",")
	return fmt.Appendf(nil, bodyOf, strings.Join(tasks, ","), more)
}

// plainTasks are as kfp writes them: each after the one before it, with an input.
func plainTasks(n int, text string) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf(`"t%d":{"cachingOptions":{"enableCache":false},"componentRef":{"name":"c"},"dependentTasks":["t%d"],"inputs":{"parameters":{"p":{"runtimeValue":{"constant":%q}}}},"taskInfo":{"name":"t%d"}}`, i, i-1, text, i)
	}
	out[0] = fmt.Sprintf(`"t0":{"componentRef":{"name":"c"},"inputs":{"parameters":{"p":{"runtimeValue":{"constant":%q}}}},"taskInfo":{"name":"t0"}}`, text)
	return out
}

func levels(n int) []byte {
	components := make([]string, n)
	for i := range components {
		below := fmt.Sprintf("x%d", i+1)
		if i == n-1 {
			below = "c"
		}
		components[i] = fmt.Sprintf(`"x%d":{"dag":{"tasks":{"t":{"componentRef":{"name":%q}}}}}`, i, below)
	}
	return pipelineOf([]string{`"a":{"componentRef":{"name":"x0"}}`}, components...)
}

const loopComponent = `"loop":{"inputDefinitions":{"parameters":{"i":{"parameterType":"NUMBER_INTEGER"},"items":{"parameterType":"LIST","isOptional":true}}},"dag":{"tasks":{"t":{"componentRef":{"name":"c"}}}}}`

func staticLoop(n int) []byte {
	items := "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]"
	return pipelineOf([]string{fmt.Sprintf(`"l":{"componentRef":{"name":"loop"},"parameterIterator":{"itemInput":"i","items":{"raw":%q}}}`, items)}, loopComponent)
}

func givenLoop() []byte {
	return pipelineOf([]string{`"l":{"componentRef":{"name":"loop"},"inputs":{"parameters":{"items":{"componentInputParameter":"items"}}},"parameterIterator":{"itemInput":"i","items":{"inputParameter":"items"}}}`}, loopComponent)
}

func nestedJSON(n int) []byte {
	return pipelineOf([]string{`"t":{"componentRef":{"name":"c"},"inputs":{"parameters":{"p":{"runtimeValue":{"constant":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}}}}}`})
}

func beyond() []bounded {
	return []bounded{
		{name: "17 MiB", spec: pipelineOf(plainTasks(17, strings.Repeat("x", 1<<20))), want: "16777216 (16 MiB) is the most"},
		{name: "18 MiB of 65,000 tasks", spec: pipelineOf(plainTasks(65_000, strings.Repeat("x", 100))), want: " is the most"},
		{name: "20,001 tasks", spec: pipelineOf(plainTasks(20_001, "x")), want: "the pipeline has more than 20000 tasks"},
		{name: "65 sub-DAGs", spec: levels(65), want: "components are nested more than 64 deep"},
		{name: "15,000 sub-DAGs", spec: levels(15_000), want: "components are nested more than 64 deep"},
		{name: "100,001 items", spec: staticLoop(100_001), want: "its 100001 iterations are too many: the loops of a run have at most 100000 together"},
		{name: "5,000,000 items", spec: staticLoop(5_000_000), want: "its 5000000 iterations are too many: the loops of a run have at most 100000 together"},
		{name: "JSON of 1,000 levels", spec: nestedJSON(1000), want: "nested more than"},
	}
}

func within() []bounded {
	items := make([]any, 100_001)
	for i := range items {
		items[i] = i
	}
	return []bounded{
		{name: "15 MiB", spec: pipelineOf(plainTasks(15, strings.Repeat("x", 1<<20))), runs: true},
		{name: "20,000 tasks", spec: pipelineOf(plainTasks(20_000, "x"))},
		{name: "63 sub-DAGs", spec: levels(63), runs: true},
		{name: "100,001 items given", spec: givenLoop(), values: map[string]any{"items": items}, runs: true, want: "its 100001 iterations are too many: the loops of a run have at most 100000 together"},
	}
}

// acceptedMB is what an accepted pipeline may take for a while: its values are a
// Struct, a copy of it, and a plan.
const acceptedMB = 512

// mutatedMB is what the largest of mutated pipelines may take for a while. 250 MB were
// live beside one of 15,000 tasks, seven eighths of it the Structs of a request (as it
// came, as the other version of the API, as it is stored and answered) that is not yet
// collected; twice as much may lie there before the collector begins (GOGC=100).
const mutatedMB = 640

// leftMB is what may be live, after all runs have ended, above what was after start:
// indexes, buffers and the runs' last pages, and nothing that grows with their number.
const leftMB = 48

const parent = "projects/p/locations/us-central1"

// refused sends a pipeline that must be refused, and watches the server's memory.
func (l *limits) refused(ctx context.Context, way string, c bounded) error {
	grew, err := l.watched(func() error {
		message, err := l.create(ctx, way, c)
		switch {
		case err != nil:
			return err
		case !strings.Contains(message, c.want):
			l.report.fail(fmt.Sprintf("%s by %s: %q does not say %q", c.name, way, clip([]byte(message), 500), c.want), "", "")
		default:
			l.report.pass()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s by %s: %w", c.name, way, err)
	}
	// What is read of a request is in memory two or three times while it grows; a
	// Struct of it would be ten to fifty times its size.
	l.bound(fmt.Sprintf("%s by %s, refused", c.name, way), len(c.spec), grew, 6*int64(len(c.spec))+32<<20)
	return nil
}

// bound tells how much memory something took.
func (l *limits) bound(what string, size int, grew, most int64) {
	l.report.notef("%s: spec of %.1f MiB, memory +%d MiB", what, float64(size)/(1<<20), grew>>20)
	if grew > most {
		l.report.fail(fmt.Sprintf("%s: memory grew by %d MiB; the bound is %d MiB", what, grew>>20, most>>20), "", "")
		return
	}
	l.report.pass()
}

// watched gives by how much the server's memory grew at most.
func (l *limits) watched(do func() error) (int64, error) {
	proc := fmt.Sprintf("/proc/%d/clear_refs", l.server.cmd.Process.Pid)
	if err := os.WriteFile(proc, []byte("5"), 0o600); err != nil { // the peak begins anew
		return 0, err
	}
	before, err := l.server.memory("VmRSS")
	if err != nil {
		return 0, err
	}
	if err := do(); err != nil {
		return 0, err
	}
	after, err := l.server.memory("VmHWM")
	return max(0, after-before), err
}

// create gives the message of a refusal, "" = none.
func (l *limits) create(ctx context.Context, way string, c bounded) (string, error) {
	switch way {
	case "REST":
		job := map[string]any{"displayName": c.name, "runtimeConfig": map[string]any{"parameterValues": c.values, "gcsOutputDirectory": "gs://bounds/root"}}
		rest, err := json.Marshal(job)
		if err != nil {
			return "", err
		}
		body := append([]byte(`{"pipelineSpec":`), c.spec...) // which no library need be able to read
		return l.post(ctx, append(append(body, ','), rest[1:]...), c)
	case "gRPC":
		spec := &structpb.Struct{}
		if err := (protojson.UnmarshalOptions{RecursionLimit: 1 << 20}).Unmarshal(c.spec, spec); err != nil {
			return "", err
		}
		given, err := structpb.NewStruct(c.values)
		if err != nil {
			return "", err
		}
		_, err = l.grpc.CreatePipelineJob(ctx, &pb.CreatePipelineJobRequest{Parent: parent, PipelineJobId: runID(way, c), PipelineJob: &pb.PipelineJob{
			DisplayName: c.name, PipelineSpec: spec,
			RuntimeConfig: &pb.PipelineJob_RuntimeConfig{GcsOutputDirectory: "gs://bounds/root", ParameterValues: given.GetFields()},
		}}, grpc.MaxCallRecvMsgSize(64<<20)) // the answer has the spec
		return status.Convert(err).Message(), nil
	default:
		file := filepath.Join(l.server.dir, "pipeline.json")
		if err := os.WriteFile(file, c.spec, 0o600); err != nil {
			return "", err
		}
		cmd := exec.CommandContext(ctx, l.options.binary, "submit", "--detach", "--data", filepath.Join(l.server.dir, "data"), file)
		out, err := cmd.CombinedOutput()
		if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
			return "", err
		}
		return string(out), nil
	}
}

func (l *limits) post(ctx context.Context, body []byte, c bounded) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+l.server.address+"/v1/"+parent+"/pipelineJobs?pipelineJobId="+runID("REST", c), bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := (&http.Client{Timeout: patience}).Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }() // read as far as it is needed
	var answer struct {
		Error struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return "", err
	}
	if resp.StatusCode/100 == 4 || resp.StatusCode == http.StatusOK {
		return answer.Error.Message, nil
	}
	return "", fmt.Errorf("status %d: %s", resp.StatusCode, answer.Error.Message)
}

func runID(way string, c bounded) string {
	return strings.ToLower(strings.NewReplacer(" ", "-", ",", "").Replace(c.name + "-" + way))
}

// accepted sends a pipeline that is taken, reads it back, and waits for its end.
func (l *limits) accepted(ctx context.Context, way string, c bounded) error {
	name := parent + "/pipelineJobs/" + runID(way, c)
	grew, err := l.watched(func() error {
		message, err := l.create(ctx, way, c)
		if err != nil || message != "" {
			return errors.Join(err, errors.New("refused: "+message))
		}
		job, err := l.grpc.GetPipelineJob(ctx, &pb.GetPipelineJobRequest{Name: name}, grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			return err
		}
		if tasks := job.PipelineSpec.GetFields()["root"].GetStructValue().GetFields()["dag"].GetStructValue().GetFields()["tasks"].GetStructValue().GetFields(); len(tasks) == 0 {
			return errors.New("the spec did not come back")
		}
		if !c.runs {
			_, err := l.grpc.CancelPipelineJob(ctx, &pb.CancelPipelineJobRequest{Name: name})
			return err
		}
		return l.ended(ctx, name, c)
	})
	if err != nil {
		l.report.fail(fmt.Sprintf("%s by %s: %v", c.name, way, err), "", "")
		return nil
	}
	l.bound(fmt.Sprintf("%s by %s, accepted", c.name, way), len(c.spec), grew, acceptedMB<<20)
	return nil
}

// ended waits for the end of a run, which must be the one that is wanted.
func (l *limits) ended(ctx context.Context, name string, c bounded) error {
	ctx, cancel := context.WithTimeout(ctx, 5*patience)
	defer cancel()
	for {
		job, err := l.grpc.GetPipelineJob(ctx, &pb.GetPipelineJobRequest{Name: name}, grpc.MaxCallRecvMsgSize(64<<20))
		if err != nil {
			return err
		}
		switch job.State {
		case pb.PipelineState_PIPELINE_STATE_SUCCEEDED:
			if c.want != "" {
				return fmt.Errorf("it succeeded, and should have failed with %q", c.want)
			}
			return nil
		case pb.PipelineState_PIPELINE_STATE_FAILED:
			for _, t := range job.GetJobDetail().GetTaskDetails() {
				if c.want != "" && strings.Contains(t.GetError().GetMessage(), c.want) {
					return nil
				}
			}
			return fmt.Errorf("it failed: %s", clip([]byte(job.GetError().GetMessage()), 500))
		default:
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("it is %s: %w", job.State, ctx.Err())
		case <-time.After(time.Second): // the answer is large
		}
	}
}
