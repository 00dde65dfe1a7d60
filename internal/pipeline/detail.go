package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/store"
)

// Details joins the task rows of a job into what job_detail.task_details shows,
// the run itself first, then in the order of creation. Place says where a workload
// waits for room; nil = nothing waits.
func Details(ctx context.Context, r store.Reader, job string, place Place) ([]*pb.PipelineTaskDetail, error) {
	name, err := resource.ParseName(job)
	if err != nil {
		return nil, err
	}
	type made struct { // where a detail comes
		at     time.Time
		path   string
		detail *pb.PipelineTaskDetail
	}
	var all []made
	err = eachTask(ctx, r, job, func(t *Task, _ store.Row) error {
		d, err := t.detail(name)
		if err != nil {
			return err
		}
		if place != nil && t.State == Running && len(t.Workload) > 0 {
			if q, waits := place(t.Workload[len(t.Workload)-1]); waits {
				queued(d, q)
			}
		}
		all = append(all, made{t.Created, t.Path, d})
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b made) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.path, b.path)) })
	details := make([]*pb.PipelineTaskDetail, len(all))
	for i := range all {
		details[i] = all[i].detail
	}
	return details, nil
}

// batch is how many rows of tasks are in memory at a time, where many are read.
const batch = 500

// eachTask visits the tasks of a job in the order in which their rows were made.
func eachTask(ctx context.Context, r store.Reader, job string, visit func(*Task, store.Row) error) error {
	query := store.Query{Kind: KindTasks, Parent: job, Order: store.ByCreated, Limit: batch}
	for {
		rows, err := r.List(ctx, query)
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		for _, row := range rows {
			t, err := decodeTask(row)
			if err != nil {
				return err
			}
			if err := visit(t, row); err != nil {
				return err
			}
		}
		if len(rows) < batch {
			return nil
		}
		query.Beyond = &rows[len(rows)-1]
	}
}

// Place gives the place of a workload that waits for room on this machine.
type Place func(workload string) (runtime.Queue, bool)

// queued shows a task that was handed to the runtime and has no room yet. The
// error of a state that is not final says what keeps it.
func queued(d *pb.PipelineTaskDetail, q runtime.Queue) {
	d.State, d.StartTime = pb.PipelineTaskDetail_PENDING, nil
	d.PipelineTaskStatus = append(d.PipelineTaskStatus, &pb.PipelineTaskDetail_PipelineTaskStatus{
		UpdateTime: timestamppb.New(q.Since), State: pb.PipelineTaskDetail_PENDING,
		Error: &status.Status{
			Code:    int32(codes.ResourceExhausted),
			Message: fmt.Sprintf("queued, number %d of %d: waits for %s", q.Position, q.Length, q.Waits),
		},
	})
}

// Delete removes what the engine keeps of a job.
func Delete(ctx context.Context, tx store.Tx, job string) error {
	for _, kind := range []store.Kind{KindTasks, kindTaken} {
		rows, err := tx.List(ctx, store.Query{Kind: kind, Parent: job})
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		for _, row := range rows {
			if err := tx.Delete(ctx, kind, row.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *Task) detail(job resource.Name) (*pb.PipelineTaskDetail, error) {
	d := &pb.PipelineTaskDetail{
		TaskId: t.ID, ParentTaskId: t.Parent, TaskName: t.Name, TaskUniqueName: t.Path,
		CreateTime: timestamppb.New(t.Created), StartTime: stamp(t.Started), EndTime: stamp(t.Ended),
		State: t.State.proto(), Error: t.problem(),
		Inputs: artifactMessages(t.Inputs.Artifacts), Outputs: artifactMessages(t.Outputs.Artifacts),
	}
	if t.Path == "" {
		d.TaskUniqueName = t.Name
	}
	if t.State == Skipped && d.StartTime == nil {
		d.StartTime = d.EndTime // a cache hit takes no time, and clients subtract the two
	}
	for _, h := range t.History {
		d.PipelineTaskStatus = append(d.PipelineTaskStatus, &pb.PipelineTaskDetail_PipelineTaskStatus{
			UpdateTime: timestamppb.New(h.Time), State: h.State.proto(), Error: h.Failure.status(),
		})
	}
	if len(t.Workload) > 0 {
		last := len(t.Workload) - 1
		d.ExecutorDetail = &pb.PipelineTaskExecutorDetail{Details: &pb.PipelineTaskExecutorDetail_ContainerDetail_{
			ContainerDetail: &pb.PipelineTaskExecutorDetail_ContainerDetail{MainJob: t.Workload[last], FailedMainJobs: t.Workload[:last]},
		}}
	}
	if !t.Started.IsZero() || t.State == Skipped {
		var err error
		if d.Execution, err = t.execution(metadataStore(job.Project(), job.Location())); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// problem is why a task failed, or was not run although nothing told it not to.
func (t *Task) problem() *status.Status {
	if t.Failure == nil && t.Blocked {
		return (&Failure{Message: t.Reason, Cause: resource.CauseUserCode}).status()
	}
	return t.Failure.status()
}

// execution is the task as the metadata store shows it.
func (t *Task) execution(metadata string) (*pb.Execution, error) {
	e := &pb.Execution{
		Name: metadata + "/executions/" + strconv.FormatInt(t.ID, 10), DisplayName: t.Name, SchemaVersion: "0.0.1",
		CreateTime: timestamppb.New(t.Created), UpdateTime: stamp(t.Started), State: t.executionState(),
	}
	if !t.Ended.IsZero() {
		e.UpdateTime = stamp(t.Ended)
	}
	switch t.Kind {
	case kindRoot:
		e.SchemaTitle = "system.Run"
	case kindGraph:
		e.SchemaTitle = "system.DagExecution"
	case kindImporter:
		e.SchemaTitle = "system.ImporterExecution"
	default:
		e.SchemaTitle = "system.ContainerExecution"
	}
	fields := map[string]any{}
	for k, v := range t.Inputs.Parameters {
		fields["input:"+k] = v
	}
	for k, v := range t.Outputs.Parameters {
		fields["output:"+k] = v
	}
	for i, w := range t.Warnings {
		fields["warning:"+strconv.Itoa(i+1)] = w
	}
	var err error
	if e.Metadata, err = structpb.NewStruct(fields); err != nil {
		return nil, fmt.Errorf("parameters of task %s: %w", t.Path, err)
	}
	return e, nil
}

func (t *Task) executionState() pb.Execution_State {
	switch t.State {
	case Pending:
		return pb.Execution_NEW
	case Running:
		return pb.Execution_RUNNING
	case Succeeded:
		return pb.Execution_COMPLETE
	case Skipped:
		return pb.Execution_CACHED
	case Failed:
		return pb.Execution_FAILED
	case Cancelled:
		return pb.Execution_CANCELLED
	default:
		return pb.Execution_STATE_UNSPECIFIED
	}
}

func (s State) proto() pb.PipelineTaskDetail_State {
	return pb.PipelineTaskDetail_State(pb.PipelineTaskDetail_State_value[string(s)])
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func artifactMessages(lists map[string][]Artifact) map[string]*pb.PipelineTaskDetail_ArtifactList {
	out := map[string]*pb.PipelineTaskDetail_ArtifactList{}
	for k, list := range lists {
		l := &pb.PipelineTaskDetail_ArtifactList{}
		for _, a := range list {
			l.Artifacts = append(l.Artifacts, a.message(k))
		}
		out[k] = l
	}
	return out
}

// message is the artifact as the metadata store shows it.
func (a Artifact) message(displayName string) *pb.Artifact {
	metadata, err := structpb.NewStruct(a.Metadata)
	if err != nil { // it was JSON, and JSON text is valid
		metadata = &structpb.Struct{}
	}
	title, version := a.Schema.Title, a.Schema.Version
	if title == "" {
		title = "system.Artifact"
	}
	if version == "" {
		version = "0.0.1"
	}
	return &pb.Artifact{
		Name: a.Name, DisplayName: displayName, Uri: a.URI, SchemaTitle: title, SchemaVersion: version,
		Metadata: metadata, State: pb.Artifact_LIVE,
	}
}

// status is the failure as clients read it.
func (f *Failure) status() *status.Status {
	if f == nil {
		return nil
	}
	return f.err().GRPCStatus().Proto()
}
