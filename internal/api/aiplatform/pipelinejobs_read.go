package aiplatform

import (
	"context"
	"slices"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// fewTasks is how many tasks of a run go on when it is about to end; a loop at work has
// more, the graphs around its programs among them.
const fewTasks = 12

// young is the age under which any job may be about to end.
const young = 30 * time.Second

// get answers a job with its tasks. The SDK's wait polls with a fixed sleep of 5 s
// after a first look at once (google-cloud-aiplatform 2.7.0, pipeline_jobs.py,
// _block_until_complete), so a job that is about to end is waited for a moment:
// otherwise a pipeline of 50 ms costs its caller 5 s.
func (s *PipelineJobs) get(ctx context.Context, req *pb.GetPipelineJobRequest) (*pb.PipelineJob, error) {
	watch := s.std.store.Watch(resource.KindPipelineJobs)
	defer watch.Close()
	job := &pb.PipelineJob{}
	if err := s.std.Load(ctx, s.std.store, req.GetName(), job); err != nil {
		return nil, err
	}
	ending, err := s.ending(ctx, job)
	if err != nil {
		return nil, err
	}
	if ending {
		if err := s.await(ctx, watch, job); err != nil {
			return nil, err
		}
	}
	if err := s.outlast(ctx, job); err != nil {
		return nil, err
	}
	return job, s.join(ctx, job, map[string]*pb.Context{})
}

// outlast waits, when a job ended in the second that it was made in, until that
// second is over. The SDK makes job ids of the pipeline's name and the time in
// seconds (google-cloud-aiplatform 2.7.0, pipeline_jobs.py, __init__): a caller
// that runs a short pipeline twice in a row would be told that its second job
// already exists.
func (s *PipelineJobs) outlast(ctx context.Context, job *pb.PipelineJob) error {
	if s.hold == 0 || !pipeline.Finished(job.State) || !timestamped(job.Name) {
		return nil
	}
	over := job.CreateTime.AsTime().Truncate(time.Second).Add(time.Second).Sub(s.std.now())
	if over <= 0 {
		return nil
	}
	timer := time.NewTimer(over)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// timestamped reports a name that ends in a time as the SDK writes it:
// -YYYYMMDDHHMMSS.
func timestamped(name string) bool {
	const digits = len("YYYYMMDDHHMMSS")
	i := strings.LastIndexByte(name, '-')
	return len(name)-i-1 == digits && strings.Trim(name[i+1:], "0123456789") == ""
}

// ending guesses whether a running job ends soon: it is young, or nothing but its
// last tasks is left.
func (s *PipelineJobs) ending(ctx context.Context, job *pb.PipelineJob) (bool, error) {
	if pipeline.Finished(job.State) {
		return false, nil
	}
	if s.std.now().Sub(job.CreateTime.AsTime()) < young {
		return true, nil
	}
	for state, most := range map[pipeline.State]int{pipeline.Pending: 0, pipeline.Running: fewTasks} {
		rows, err := s.std.store.List(ctx, store.Query{
			Kind: pipeline.KindTasks, Prefix: job.Name + "/tasks/", States: []string{string(state)}, Limit: most + 1,
		})
		if err != nil || len(rows) > most {
			return false, err
		}
	}
	return true, nil
}

// await reads job again until it has ended or the hold is over.
func (s *PipelineJobs) await(ctx context.Context, watch store.Watcher, job *pb.PipelineJob) error {
	held, cancel := context.WithTimeout(ctx, s.hold)
	defer cancel()
	for !pipeline.Finished(job.State) {
		changes, err := watch.Next(held)
		if err != nil {
			return ctx.Err() // nil when only the hold is over
		}
		if !slices.ContainsFunc(changes, func(c store.Change) bool { return c.Key == job.Name }) {
			continue
		}
		name := job.Name
		proto.Reset(job)
		if err := s.std.Load(ctx, s.std.store, name, job); err != nil {
			return err
		}
	}
	return nil
}

// join fills job_detail from the rows of tasks and contexts.
func (s *PipelineJobs) join(ctx context.Context, job *pb.PipelineJob, known map[string]*pb.Context) error {
	if job.JobDetail == nil {
		job.JobDetail = &pb.PipelineJobDetail{}
	}
	var err error
	if job.JobDetail.TaskDetails, err = pipeline.Details(ctx, s.std.store, job.Name, s.place); err != nil {
		return err
	}
	return s.joinContexts(ctx, job.JobDetail, known)
}

// joinContexts reads the contexts again: an experiment becomes a parent of the
// run's context after the job was made. known are those that were read already: the
// runs of a pipeline share one.
func (s *PipelineJobs) joinContexts(ctx context.Context, d *pb.PipelineJobDetail, known map[string]*pb.Context) error {
	for _, c := range []**pb.Context{&d.PipelineContext, &d.PipelineRunContext} {
		name := (*c).GetName()
		if known[name] == nil {
			now := &pb.Context{}
			switch _, err := store.GetMessage(ctx, s.std.store, resource.KindContexts, name, now); {
			case resource.IsNotFound(err):
				continue
			case err != nil:
				return err
			}
			known[name] = now
		}
		*c = known[name]
	}
	return nil
}

func (s *PipelineJobs) list(ctx context.Context, req *pb.ListPipelineJobsRequest) (*pb.ListPipelineJobsResponse, error) {
	resp, known := &pb.ListPipelineJobsResponse{}, map[string]*pb.Context{}
	return resp, s.std.ListWith(ctx, req, resp, ListOptions{
		Each: func(ctx context.Context, msg proto.Message) error {
			job, ok := msg.(*pb.PipelineJob)
			switch {
			case !ok:
				return nil
			case wantsTasks(req.GetReadMask().GetPaths()):
				return s.join(ctx, job, known)
			default:
				return s.joinContexts(ctx, job.GetJobDetail(), known)
			}
		},
	})
}

// wantsTasks reports whether a read mask asks for the tasks; none asks for all.
func wantsTasks(paths []string) bool {
	return len(paths) == 0 || slices.ContainsFunc(paths, func(p string) bool {
		return p == "*" || p == "job_detail" || strings.HasPrefix(p, "job_detail.task_details")
	})
}

// contexts makes the metadata contexts of a run, which clients look for right
// after the creation: one for the pipeline, shared by its runs, one for the run.
func (s *PipelineJobs) contexts(ctx context.Context, tx store.Tx, parent, pipelineName, id string) (*pb.PipelineJobDetail, error) {
	metadata := parent + "/metadataStores/default"
	switch _, err := tx.Get(ctx, resource.KindMetadataStores, metadata); {
	case resource.IsNotFound(err):
		if err := s.std.Insert(ctx, tx, parent, "default", &pb.MetadataStore{}, ""); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	}
	shared := &pb.Context{DisplayName: pipelineName, SchemaTitle: "system.Pipeline", SchemaVersion: "0.0.1"}
	if err := s.context(ctx, tx, metadata, pipelineName, shared); err != nil {
		return nil, err
	}
	if id == pipelineName {
		id += "-run" // both are contexts of one store
	}
	own := &pb.Context{DisplayName: id, SchemaTitle: "system.PipelineRun", SchemaVersion: "0.0.1", ParentContexts: []string{shared.Name}}
	if err := s.context(ctx, tx, metadata, id, own); err != nil {
		return nil, err
	}
	return &pb.PipelineJobDetail{PipelineContext: shared, PipelineRunContext: own}, nil
}

// context reads a context into c, or makes it as c says.
func (s *PipelineJobs) context(ctx context.Context, tx store.Tx, metadata, id string, c *pb.Context) error {
	there := &pb.Context{}
	switch _, err := store.GetMessage(ctx, tx, resource.KindContexts, metadata+"/contexts/"+id, there); {
	case err == nil:
		proto.Reset(c)
		proto.Merge(c, there)
		return nil
	case !resource.IsNotFound(err):
		return err
	}
	return s.std.Insert(ctx, tx, metadata, id, c, "")
}
