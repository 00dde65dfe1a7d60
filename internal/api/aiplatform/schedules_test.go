package aiplatform

import (
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"cloud.google.com/go/longrunning/autogen/longrunningpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/api"
	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// newScheduleServer serves schedules and pipeline jobs.
func newScheduleServer(t *testing.T) (*server, *Schedules) {
	t.Helper()
	s := newServer(t)
	jobs := NewPipelineJobs(s.std, accounts{}, noGPU{}, nil, 0)
	schedules := NewSchedules(s.std, jobs, noGPU{})
	var groups [][]api.Method
	for _, part := range []interface{ Methods() ([]api.Method, error) }{jobs, schedules} {
		methods, err := part.Methods()
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, methods)
	}
	table, err := api.NewTable(groups...)
	if err != nil {
		t.Fatal(err)
	}
	s.table = table
	return s, schedules
}

func onSchedules(method string) string { return MethodName(scheduleService, method) }

// scheduled is a schedule that CreateSchedule takes.
func scheduled(t *testing.T, edit func(s *pb.Schedule)) *pb.CreateScheduleRequest {
	t.Helper()
	s := &pb.Schedule{
		DisplayName: "nightly", TimeSpecification: &pb.Schedule_Cron{Cron: "TZ=Europe/Berlin 30 2 * * *"}, MaxConcurrentRunCount: 1,
		Request: &pb.Schedule_CreatePipelineJobRequest{CreatePipelineJobRequest: &pb.CreatePipelineJobRequest{
			Parent: location, PipelineJob: newPipelineJob(t),
		}},
	}
	if edit != nil {
		edit(s)
	}
	return &pb.CreateScheduleRequest{Parent: location, Schedule: s}
}

func TestCreateSchedule(t *testing.T) {
	t.Parallel()
	s, _ := newScheduleServer(t)
	made := call[*pb.Schedule](t, s, onSchedules("CreateSchedule"), scheduled(t, func(s *pb.Schedule) {
		s.Name, s.StartedRunCount, s.State = location+"/schedules/mine", 7, pb.Schedule_COMPLETED // the server's alone
	}))
	if made.State != pb.Schedule_ACTIVE || made.StartedRunCount != 0 || made.NextRunTime == nil || !strings.HasPrefix(made.Name, location+"/schedules/") || strings.HasSuffix(made.Name, "mine") {
		t.Errorf("made %v", made)
	}
	got := call[*pb.Schedule](t, s, onSchedules("GetSchedule"), &pb.GetScheduleRequest{Name: made.Name})
	if !proto.Equal(got, made) {
		t.Errorf("got %v, made %v", got, made)
	}
	for filter, want := range map[string]int{
		`display_name="nightly"`: 1, `state="PAUSED"`: 0, `create_pipeline_job_request:*`: 1, `NOT end_time:*`: 1, `next_run_time>"2020-01-01T00:00:00Z" AND state="ACTIVE"`: 1,
		`create_notebook_execution_job_request:*`: 0,
	} {
		list := call[*pb.ListSchedulesResponse](t, s, onSchedules("ListSchedules"), &pb.ListSchedulesRequest{Parent: location, Filter: filter, OrderBy: "create_time desc"})
		if len(list.Schedules) != want {
			t.Errorf("%s: %d schedules", filter, len(list.Schedules))
		}
	}
}

func TestCreateScheduleRefuses(t *testing.T) {
	t.Parallel()
	s, _ := newScheduleServer(t)
	template := func(edit func(r *pb.CreatePipelineJobRequest)) func(s *pb.Schedule) {
		return func(s *pb.Schedule) { edit(s.GetCreatePipelineJobRequest()) }
	}
	past := timestamppb.New(time.Now().Add(-time.Hour))
	for _, tt := range []struct {
		edit func(s *pb.Schedule)
		code codes.Code
		part string
	}{
		{func(s *pb.Schedule) { s.DisplayName = "" }, codes.InvalidArgument, "display_name"},
		{func(s *pb.Schedule) { s.DisplayName = strings.Repeat("x", 129) }, codes.InvalidArgument, "128"},
		{func(s *pb.Schedule) { s.TimeSpecification = nil }, codes.InvalidArgument, "cron"},
		{func(s *pb.Schedule) { s.TimeSpecification = &pb.Schedule_Cron{Cron: "TZ=Nowhere * * * * *"} }, codes.InvalidArgument, "Nowhere"},
		{func(s *pb.Schedule) { s.MaxConcurrentRunCount = 0 }, codes.InvalidArgument, "max_concurrent_run_count"},
		{func(s *pb.Schedule) { s.MaxConcurrentActiveRunCount = -1 }, codes.InvalidArgument, "max_concurrent_active_run_count"},
		{func(s *pb.Schedule) { s.MaxRunCount = -1 }, codes.InvalidArgument, "max_run_count"},
		{func(s *pb.Schedule) { s.EndTime = past }, codes.InvalidArgument, "end_time"},
		{func(s *pb.Schedule) { s.StartTime = &timestamppb.Timestamp{Nanos: -1} }, codes.InvalidArgument, "start_time"},
		{func(s *pb.Schedule) { s.Request = nil }, codes.InvalidArgument, "create_pipeline_job_request"},
		{func(s *pb.Schedule) {
			s.Request = &pb.Schedule_CreateNotebookExecutionJobRequest{CreateNotebookExecutionJobRequest: &pb.CreateNotebookExecutionJobRequest{}}
		}, codes.Unimplemented, "notebook"},
		{template(func(r *pb.CreatePipelineJobRequest) { r.PipelineJobId = "mine" }), codes.InvalidArgument, "pipeline_job_id"},
		{template(func(r *pb.CreatePipelineJobRequest) { r.Parent = "projects/other/locations/l" }), codes.InvalidArgument, "parent"},
		{template(func(r *pb.CreatePipelineJobRequest) { r.PipelineJob = nil }), codes.InvalidArgument, "pipeline_job"},
		// What CreatePipelineJob refuses is refused here.
		{template(func(r *pb.CreatePipelineJobRequest) { r.PipelineJob.PipelineSpec = nil }), codes.InvalidArgument, "spec"},
		{template(func(r *pb.CreatePipelineJobRequest) { r.PipelineJob.RuntimeConfig.ParameterValues = nil }), codes.InvalidArgument, "n"},
		{template(func(r *pb.CreatePipelineJobRequest) { r.PipelineJob.ServiceAccount = "not-ok@x" }), codes.PermissionDenied, "not-ok@x"},
	} {
		refuse(t, s, onSchedules("CreateSchedule"), scheduled(t, tt.edit), tt.code, tt.part)
	}
}

func TestScheduleLife(t *testing.T) {
	t.Parallel()
	s, _ := newScheduleServer(t)
	made := call[*pb.Schedule](t, s, onSchedules("CreateSchedule"), scheduled(t, nil))
	update := func(edit func(s *pb.Schedule), paths ...string) *pb.UpdateScheduleRequest {
		given := proto.CloneOf(made)
		edit(given)
		return &pb.UpdateScheduleRequest{Schedule: given, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}}
	}
	changed := call[*pb.Schedule](t, s, onSchedules("UpdateSchedule"), update(func(s *pb.Schedule) {
		s.TimeSpecification, s.MaxRunCount, s.AllowQueueing, s.DisplayName = &pb.Schedule_Cron{Cron: "0 0 1 1 *"}, 5, true, "ignored"
	}, "cron", "max_run_count", "allow_queueing"))
	if next := changed.NextRunTime.AsTime(); next.Month() != time.January || next.Day() != 1 || changed.MaxRunCount != 5 || !changed.AllowQueueing || changed.DisplayName != "nightly" {
		t.Errorf("changed to %v", changed)
	}
	refuse(t, s, onSchedules("UpdateSchedule"), update(func(s *pb.Schedule) { s.MaxRunCount = 0 }, "max_run_count"), codes.InvalidArgument, "unset")
	refuse(t, s, onSchedules("UpdateSchedule"), update(func(s *pb.Schedule) { s.Request = nil }, "create_pipeline_job_request"), codes.InvalidArgument, "create_pipeline_job_request")
	refuse(t, s, onSchedules("UpdateSchedule"), update(func(s *pb.Schedule) { s.GetCreatePipelineJobRequest().PipelineJob.ServiceAccount = "not-ok@x" }, "create_pipeline_job_request"), codes.PermissionDenied, "not-ok@x")
	refuse(t, s, onSchedules("UpdateSchedule"), update(func(s *pb.Schedule) { s.Name += "0" }, "cron"), codes.NotFound)

	refuse(t, s, onSchedules("ResumeSchedule"), &pb.ResumeScheduleRequest{Name: made.Name}, codes.FailedPrecondition, "ACTIVE")
	for range 2 { // the second changes nothing
		call[*emptypb.Empty](t, s, onSchedules("PauseSchedule"), &pb.PauseScheduleRequest{Name: made.Name})
	}
	paused := call[*pb.Schedule](t, s, onSchedules("GetSchedule"), &pb.GetScheduleRequest{Name: made.Name})
	if paused.State != pb.Schedule_PAUSED || paused.LastPauseTime == nil {
		t.Errorf("paused: %v", paused)
	}
	call[*emptypb.Empty](t, s, onSchedules("ResumeSchedule"), &pb.ResumeScheduleRequest{Name: made.Name, CatchUp: true})
	resumed := call[*pb.Schedule](t, s, onSchedules("GetSchedule"), &pb.GetScheduleRequest{Name: made.Name})
	if resumed.State != pb.Schedule_ACTIVE || !resumed.CatchUp || resumed.LastResumeTime == nil {
		t.Errorf("resumed: %v", resumed)
	}
	op := call[*longrunningpb.Operation](t, s, onSchedules("DeleteSchedule"), &pb.DeleteScheduleRequest{Name: made.Name})
	if !op.Done {
		t.Errorf("operation %v", op)
	}
	for _, m := range []struct {
		name string
		req  proto.Message
	}{
		{"GetSchedule", &pb.GetScheduleRequest{Name: made.Name}},
		{"PauseSchedule", &pb.PauseScheduleRequest{Name: made.Name}},
		{"ResumeSchedule", &pb.ResumeScheduleRequest{Name: made.Name}},
		{"DeleteSchedule", &pb.DeleteScheduleRequest{Name: made.Name}},
	} {
		refuse(t, s, onSchedules(m.name), m.req, codes.NotFound, made.Name)
	}
}

func TestCompletedScheduleStays(t *testing.T) {
	t.Parallel()
	s, _ := newScheduleServer(t)
	made := call[*pb.Schedule](t, s, onSchedules("CreateSchedule"), scheduled(t, nil))
	made.State = pb.Schedule_COMPLETED
	if err := s.store.Update(t.Context(), func(tx store.Tx) error { return s.std.Save(t.Context(), tx, made, made.State.String()) }); err != nil {
		t.Fatal(err)
	}
	refuse(t, s, onSchedules("PauseSchedule"), &pb.PauseScheduleRequest{Name: made.Name}, codes.FailedPrecondition, "completed")
	refuse(t, s, onSchedules("ResumeSchedule"), &pb.ResumeScheduleRequest{Name: made.Name}, codes.FailedPrecondition, "COMPLETED")
	refuse(t, s, onSchedules("UpdateSchedule"), &pb.UpdateScheduleRequest{Schedule: made, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"cron"}}}, codes.FailedPrecondition, "completed")
}

func TestPreparedRun(t *testing.T) {
	t.Parallel()
	s, schedules := newScheduleServer(t)
	for display, want := range map[string]string{"": "adder-20261126013000", "mine": "mine"} {
		made := call[*pb.Schedule](t, s, onSchedules("CreateSchedule"), scheduled(t, func(s *pb.Schedule) {
			job := s.GetCreatePipelineJobRequest().PipelineJob
			job.DisplayName, job.ServiceAccount, job.Labels = display, "ok@x", map[string]string{"team": "blue"}
		}))
		tick := time.Date(2026, 11, 26, 1, 30, 0, 0, time.UTC)
		run, err := schedules.Prepare(t.Context(), made, tick)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.Update(t.Context(), func(tx store.Tx) error { return run.Insert(t.Context(), tx) }); err != nil {
			t.Fatal(err)
		}
		id := strings.TrimPrefix(made.Name, location+"/schedules/")
		job := call[*pb.PipelineJob](t, s, pipelineMethod("GetPipelineJob"), &pb.GetPipelineJobRequest{Name: run.Name()})
		switch {
		case job.Name != jobName+"adder-"+id+"-20261126013000":
			t.Errorf("name %s", job.Name)
		case job.DisplayName != want:
			t.Errorf("display name %s, want %s", job.DisplayName, want)
		case job.ScheduleName != made.Name:
			t.Errorf("schedule name %s", job.ScheduleName)
		case job.ServiceAccount != "ok@x" || job.Labels["team"] != "blue" || job.Labels[pipeline.RunNumberLabel] == "":
			t.Errorf("account %s, labels %v", job.ServiceAccount, job.Labels)
		case job.State != pb.PipelineState_PIPELINE_STATE_PENDING || job.JobDetail.GetPipelineRunContext() == nil:
			t.Errorf("job %v", job)
		}
		list := call[*pb.ListPipelineJobsResponse](t, s, pipelineMethod("ListPipelineJobs"), &pb.ListPipelineJobsRequest{
			Parent: location, Filter: "schedule_name=" + made.Name + ` AND state="PIPELINE_STATE_PENDING"`, // as the SDK's list_jobs writes it
		})
		if len(list.PipelineJobs) != 1 || list.PipelineJobs[0].Name != run.Name() {
			t.Errorf("listed %v", list.PipelineJobs)
		}
	}
}

func TestDeletedRunLeavesNothing(t *testing.T) {
	t.Parallel()
	s, _ := newScheduleServer(t)
	job := createPipelineJob(t, s, "")
	finishJob(t, s, job.Name)
	err := s.store.Update(t.Context(), func(tx store.Tx) error {
		return tx.Put(t.Context(), store.Row{Kind: resource.KindScheduledRuns, Key: job.Name, Data: []byte("2026-11-26T01:30:00Z")})
	})
	if err != nil {
		t.Fatal(err)
	}
	call[*longrunningpb.Operation](t, s, pipelineMethod("DeletePipelineJob"), &pb.DeletePipelineJobRequest{Name: job.Name})
	if _, err := s.store.Get(t.Context(), resource.KindScheduledRuns, job.Name); !resource.IsNotFound(err) {
		t.Errorf("the row of the tick is still there: %v", err)
	}
}
