package aiplatform

import (
	"context"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"tategu/internal/api"
	"tategu/internal/identity"
	"tategu/internal/resource"
	"tategu/internal/schedule"
	"tategu/internal/store"
)

const scheduleService = "ScheduleService"

// Schedules serves ScheduleService for pipeline jobs. The schedule engine acts on
// the rows; what it starts is prepared here (Prepare), so that a scheduled run
// passes the checks of any other.
type Schedules struct {
	std       *Standard
	jobs      *PipelineJobs
	placement WorkloadChecker
}

// NewSchedules makes the service. placement checks what can run here, without
// asking whether a caller may: the engine has none.
func NewSchedules(std *Standard, jobs *PipelineJobs, placement WorkloadChecker) *Schedules {
	return &Schedules{std: std, jobs: jobs, placement: placement}
}

// Methods gives the rows of the dispatch table.
func (s *Schedules) Methods() ([]api.Method, error) {
	methods, err := s.std.Methods(scheduleService, "GetSchedule", "ListSchedules")
	if err != nil {
		return nil, err
	}
	name := func(m string) string { return MethodName(scheduleService, m) }
	return append(methods,
		api.Unary(name("CreateSchedule"), "aiplatform.schedules.create", s.create).Within(pipelineLimits()),
		api.Unary(name("UpdateSchedule"), "aiplatform.schedules.update", s.update).Within(pipelineLimits()),
		api.Unary(name("DeleteSchedule"), "aiplatform.schedules.delete", s.delete),
		api.Unary(name("PauseSchedule"), "aiplatform.schedules.pause", s.pause),
		api.Unary(name("ResumeSchedule"), "aiplatform.schedules.resume", s.resume),
	), nil
}

func (s *Schedules) create(ctx context.Context, req *pb.CreateScheduleRequest) (*pb.Schedule, error) {
	if req.GetSchedule() == nil {
		return nil, resource.Invalid("schedule", "schedule is missing")
	}
	sched := proto.CloneOf(req.Schedule)
	ClearOutputOnly(sched)
	sched.Name = ""
	if err := s.check(ctx, req.GetParent(), sched); err != nil {
		return nil, err
	}
	if err := schedule.Begin(sched, s.std.now()); err != nil {
		return nil, err
	}
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		return s.std.Insert(ctx, tx, req.GetParent(), "", sched, sched.State.String())
	})
	if err != nil {
		return nil, err
	}
	return sched, nil
}

// check refuses a request template that CreatePipelineJob would refuse this caller,
// by its service account and images too: nobody is asked again when runs start.
func (s *Schedules) check(ctx context.Context, parent string, sched *pb.Schedule) error {
	const field = "schedule.create_pipeline_job_request"
	switch {
	case sched.GetDisplayName() == "":
		return resource.Invalid("schedule.display_name", "display_name is not set")
	case len(sched.DisplayName) > 128:
		return resource.Invalid("schedule.display_name", "display_name has %d bytes; 128 is the most", len(sched.DisplayName))
	case sched.GetCreateModelMonitoringJobRequest() != nil:
		return resource.Unimplemented("schedule.create_model_monitoring_job_request")
	case sched.GetCreateNotebookExecutionJobRequest() != nil:
		return resource.Unimplemented("schedule.create_notebook_execution_job_request")
	case sched.GetCreatePipelineJobRequest() == nil:
		return resource.Invalid(field, "create_pipeline_job_request is not set")
	}
	template := sched.GetCreatePipelineJobRequest()
	switch {
	case template.GetPipelineJobId() != "":
		return resource.Invalid(field+".pipeline_job_id", "runs of a schedule get their ids from it; leave pipeline_job_id empty")
	case template.Parent != parent:
		return resource.Invalid(field+".parent", "%q is not the parent of the schedule, %q", template.Parent, parent)
	}
	l, err := s.jobs.prepare(ctx, s.jobs.checker, template)
	if err != nil {
		return err
	}
	if _, err := RunAs(ctx, s.jobs.accounts, l.parent.Project(), l.job.ServiceAccount); err != nil {
		return err
	}
	return s.std.checkID("pipeline_job", schedule.RunID(l.plan.Name, resource.NewID(), s.std.now()))
}

// Prepare makes the run of a tick for the schedule engine. The service account and
// the images were allowed to whoever named them; the account must still exist.
func (s *Schedules) Prepare(ctx context.Context, sched *pb.Schedule, tick time.Time) (schedule.Run, error) {
	l, err := s.jobs.prepare(ctx, s.placement, sched.GetCreatePipelineJobRequest())
	if err != nil {
		return nil, err
	}
	if l.job.ServiceAccount == "" {
		l.job.ServiceAccount = identity.DefaultServiceAccount(l.parent.Project())
	} else if _, l.job.ServiceAccount, err = s.jobs.accounts.ServiceAccount(ctx, l.job.ServiceAccount); err != nil {
		return nil, err
	}
	name, err := resource.ParseName(sched.Name)
	if err != nil {
		return nil, err
	}
	l.id, l.job.ScheduleName = schedule.RunID(l.plan.Name, name.ID(), tick), sched.Name
	if l.job.DisplayName == "" {
		l.job.DisplayName = strings.Replace(l.id, "-"+name.ID(), "", 1)
	}
	return l, nil
}

// update checks a new template before the transaction, since the checks ask the
// runtime too.
func (s *Schedules) update(ctx context.Context, req *pb.UpdateScheduleRequest) (*pb.Schedule, error) {
	if req.GetSchedule() == nil {
		return nil, resource.Invalid("schedule", "schedule is missing")
	}
	name := req.Schedule.GetName()
	draft := &pb.Schedule{}
	if err := s.std.Load(ctx, s.std.store, name, draft); err != nil {
		return nil, err
	}
	before, err := s.merge(req, draft)
	if err != nil {
		return nil, err
	}
	if !proto.Equal(before.GetCreatePipelineJobRequest(), draft.GetCreatePipelineJobRequest()) || before.DisplayName != draft.DisplayName {
		if err := s.check(ctx, parentOf(name), draft); err != nil {
			return nil, err
		}
	}
	return s.change(ctx, name, func(tx store.Tx, sched *pb.Schedule) error {
		before, err := s.merge(req, sched)
		if err != nil {
			return err
		}
		if !proto.Equal(sched.GetCreatePipelineJobRequest(), draft.GetCreatePipelineJobRequest()) {
			return resource.Errorf(codes.Aborted, "%s was changed by somebody else at the same time", name).WithResource(name).
				WithHint("read it again and repeat the change")
		}
		if err := schedule.Change(before, sched, s.std.now()); err != nil {
			return err
		}
		return tx.Delete(ctx, resource.KindScheduleQueues, name)
	})
}

// merge applies an update to sched and gives what it was.
func (s *Schedules) merge(req *pb.UpdateScheduleRequest, sched *pb.Schedule) (before *pb.Schedule, err error) {
	before = proto.CloneOf(sched)
	if err := Merge(req, sched, req.Schedule); err != nil {
		return nil, err
	}
	return before, nil
}

func parentOf(name string) string {
	parent, _, _ := strings.Cut(name, "/schedules/")
	return parent
}

func (s *Schedules) pause(ctx context.Context, req *pb.PauseScheduleRequest) (*emptypb.Empty, error) {
	_, err := s.change(ctx, req.GetName(), func(_ store.Tx, sched *pb.Schedule) error {
		return schedule.Pause(sched, s.std.now())
	})
	return &emptypb.Empty{}, err
}

func (s *Schedules) resume(ctx context.Context, req *pb.ResumeScheduleRequest) (*emptypb.Empty, error) {
	_, err := s.change(ctx, req.GetName(), func(tx store.Tx, sched *pb.Schedule) error {
		if err := schedule.Resume(sched, req.GetCatchUp(), s.std.now()); err != nil {
			return err
		}
		if req.GetCatchUp() {
			return nil
		}
		return tx.Delete(ctx, resource.KindScheduleQueues, sched.Name) // what waited is skipped too
	})
	return &emptypb.Empty{}, err
}

// change rewrites a schedule in one transaction with the engine's progress.
func (s *Schedules) change(ctx context.Context, name string, edit func(tx store.Tx, sched *pb.Schedule) error) (*pb.Schedule, error) {
	sched := &pb.Schedule{}
	err := s.std.store.Update(ctx, func(tx store.Tx) error {
		if err := s.std.Load(ctx, tx, name, sched); err != nil {
			return err
		}
		if err := edit(tx, sched); err != nil {
			return err
		}
		return s.std.Save(ctx, tx, sched, sched.State.String())
	})
	return sched, err
}

// delete removes a schedule; its runs stay, and go on.
func (s *Schedules) delete(ctx context.Context, req *pb.DeleteScheduleRequest) (*longrunningpb.Operation, error) {
	sched := &pb.Schedule{}
	return s.std.Delete(ctx, req, sched, func(tx store.Tx) error {
		return tx.Delete(ctx, resource.KindScheduleQueues, sched.Name)
	})
}
