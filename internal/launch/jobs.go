package launch

import (
	"context"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"tategu/internal/gcpc"
	"tategu/internal/resource"
)

// job is what is read of a CustomJob and a BatchPredictionJob.
type job struct {
	Name       string     `json:"name"`
	State      string     `json:"state"`
	Error      *apiStatus `json:"error"`
	OutputInfo struct {
		Directory string `json:"gcsOutputDirectory"`
		Dataset   string `json:"bigqueryOutputDataset"`
		Table     string `json:"bigqueryOutputTable"`
	} `json:"outputInfo"`
}

func (j *job) succeeded() bool { return j.State == "JOB_STATE_SUCCEEDED" }

func (j *job) failed() bool {
	return j.State == "JOB_STATE_FAILED" || j.State == "JOB_STATE_CANCELLED" || j.State == "JOB_STATE_PAUSED" || j.State == "JOB_STATE_EXPIRED"
}

func (l *launcher) customJob(ctx context.Context) error {
	parent, err := l.parent()
	if err != nil {
		return err
	}
	body, err := gcpc.CustomJobOf(l.args.Payload, l.Labels)
	if err != nil {
		return err
	}
	_, err = l.runJob(ctx, gcpc.TypeCustomJob, parent+"/customJobs", body)
	return err
}

func (l *launcher) batchJob(ctx context.Context) error {
	parent, err := l.parent()
	if err != nil {
		return err
	}
	body, err := gcpc.BatchJobOf(l.args.Payload, l.Labels, l.in)
	if err != nil {
		return err
	}
	j, err := l.runJob(ctx, gcpc.TypeBatchJob, parent+"/batchPredictionJobs", body)
	if err != nil {
		return err
	}
	made := map[string]gcpc.Made{"batchpredictionjob": {
		URI: gcpc.URIOf(gcpc.LocationOf(j.Name), j.Name),
		Metadata: map[string]any{
			"resourceName": j.Name, "gcsOutputDirectory": j.OutputInfo.Directory,
			"bigqueryOutputDataset": j.OutputInfo.Dataset, "bigqueryOutputTable": j.OutputInfo.Table,
		},
	}}
	if j.OutputInfo.Directory != "" {
		made["gcs_output_directory"] = gcpc.Made{URI: j.OutputInfo.Directory, Metadata: map[string]any{}}
	}
	return l.outputs(made)
}

// runJob makes a job, or finds the one that this task made before, and follows it.
func (l *launcher) runJob(ctx context.Context, typ, collection string, body map[string]any) (*job, error) {
	j, err := l.job(ctx, collection, body)
	if err != nil {
		return nil, err
	}
	if err := l.made(typ, j.Name); err != nil {
		return nil, err
	}
	return l.follow(ctx, typ, j)
}

// job gives the job of this task. One that has failed is the end of the attempt
// that made it; a later attempt makes another.
func (l *launcher) job(ctx context.Context, collection string, body map[string]any) (*job, error) {
	for round := 1; ; round++ {
		if err := ctx.Err(); err != nil {
			return nil, resource.Errorf(codes.Canceled, "the task was cancelled; nothing was made")
		}
		j, err := l.createJob(ctx, collection, l.id(round), body)
		if err != nil || round >= l.Attempt || !j.failed() {
			return j, err
		}
		l.say("%s of an earlier attempt is %s", j.Name, j.State)
	}
}

// createJob makes a job, or gives the one with this id. It is not broken off: who
// makes a job has to know of it, to stop it.
func (l *launcher) createJob(ctx context.Context, collection, id string, body map[string]any) (*job, error) {
	ctx = context.WithoutCancel(ctx)
	j := &job{}
	err := l.API.call(ctx, http.MethodPost, "/v1/"+collection, id, body, j)
	if err == nil {
		l.say("made %s; `tategu logs %s` shows its output", j.Name, id)
		return j, nil
	}
	if known := l.API.call(ctx, http.MethodGet, "/v1/"+collection+"/"+id, "", nil, j); known != nil {
		return nil, err
	}
	l.say("found %s, which this task made before", j.Name)
	return j, nil
}

// follow looks at a job until it ends. When the task is cancelled, so is the job.
func (l *launcher) follow(ctx context.Context, typ string, j *job) (*job, error) {
	pause, said := firstPause, ""
	for {
		if j.State != said {
			l.say("%s", j.State)
			said = j.State
		}
		switch {
		case j.succeeded():
			return j, nil
		case j.failed() && j.Error != nil && j.Error.Message != "":
			return nil, failed(typ+" "+j.Name+" failed", *j.Error)
		case j.failed():
			return nil, resource.Errorf(codes.FailedPrecondition, "%s %s is %s", typ, j.Name, j.State)
		}
		if l.API.Sleep(ctx, pause) != nil {
			return nil, l.stop(ctx, j.Name)
		}
		pause = min(2*pause, longestLook)
		now := &job{}
		if err := l.API.call(ctx, http.MethodGet, "/v1/"+j.Name, "", nil, now); err != nil {
			if ctx.Err() != nil {
				return nil, l.stop(ctx, j.Name)
			}
			return nil, err
		}
		j = now
	}
}

const (
	// longestLook is the longest pause between two looks at a job.
	longestLook = time.Second
	// stopTime is less than what a cancelled task has between SIGTERM and SIGKILL.
	stopTime = 8 * time.Second
)

// stop cancels a job or an operation, since the task was.
func (l *launcher) stop(ctx context.Context, name string) error {
	ctx, end := context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	defer end()
	if err := l.API.call(ctx, http.MethodPost, "/v1/"+name+":cancel", "", map[string]any{}, nil); err != nil {
		return resource.Errorf(codes.Canceled, "the task was cancelled, but %s was not told: %w", name, err)
	}
	l.say("cancelled %s", name)
	return cancelled(name)
}
