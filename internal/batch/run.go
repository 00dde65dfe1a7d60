package batch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/modelformat"
	"tategu/internal/replica"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

const (
	defaultBatch  = 64      // instances of a request, as on Vertex AI
	batchBytes    = 1 << 20 // and their size at most
	perReplica    = 2       // requests in flight for each replica
	stopLimit     = 30 * time.Second
	resultsFile   = "prediction.results-00000-of-00001"
	errorsFile    = "prediction.errors_stats-00000-of-00001"
	partialsShown = 10
)

// run is one job at work.
type run struct {
	engine     *Engine
	log        *slog.Logger
	job        *pb.BatchPredictionJob
	set        *replica.Set
	route      string
	parameters []byte
	shape      shape
}

// do brings the job to its end.
func (r *run) do(ctx context.Context) result {
	inputs, err := r.engine.inputs(ctx, r.job.GetInputConfig().GetGcsSource().GetUris())
	if err != nil {
		return result{err: err}
	}
	model, err := r.model(ctx)
	if err != nil {
		return result{err: err}
	}
	if p := r.job.GetModelParameters(); p != nil {
		if r.parameters, err = p.MarshalJSON(); err != nil {
			return result{err: resource.Invalid("model_parameters", "model_parameters: %w", err)}
		}
	}
	r.shape = newShape(r.job.GetInstanceConfig())
	workers, err := r.prepare(ctx, model)
	if err != nil {
		return result{err: err}
	}
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := r.set.Run(ctx); err != nil {
			r.log.ErrorContext(ctx, "replica set ended", slog.Any("error", err))
		}
	})
	defer r.stop(ctx, &keeping)
	if err := r.set.WaitReady(ctx); err != nil {
		return result{err: err}
	}
	return r.stream(ctx, inputs, directory(r.job, model), workers)
}

// stop ends the replicas of a job that ended by itself. Those of a cancelled one
// are ended by the engine; at the end of the server they stay for the job's next start.
func (r *run) stop(ctx context.Context, keeping *sync.WaitGroup) {
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	var err error
	if ctx.Err() == nil {
		err = r.set.Stop(ending, 0)
	}
	keeping.Wait()
	if err != nil {
		r.log.WarnContext(ending, "cannot stop the replicas of a batch prediction job", slog.Any("error", err))
	}
}

func setName(job string) string {
	return "batch-" + job[strings.LastIndexByte(job, '/')+1:]
}

// model reads the job's model, or makes one of its unmanaged container model.
func (r *run) model(ctx context.Context) (*pb.Model, error) {
	if u := r.job.GetUnmanagedContainerModel(); u != nil {
		return &pb.Model{DisplayName: "unmanaged", ArtifactUri: u.GetArtifactUri(), ContainerSpec: u.GetContainerSpec()}, nil
	}
	return modelformat.LoadModel(ctx, r.engine.cfg.Store, r.job.GetModel(), r.job.GetModelVersionId())
}

// prepare makes the set; workers is how many requests may be under way.
func (r *run) prepare(ctx context.Context, model *pb.Model) (workers int, err error) {
	name, err := resource.ParseName(r.job.GetName())
	if err != nil {
		return 0, err
	}
	res := r.job.GetDedicatedResources()
	plan, err := r.engine.planner.Plan(ctx, model, modelformat.Target{
		Project: name.Project(), DeployedModel: name.ID(), Endpoint: "batch", Machine: res.GetMachineSpec(),
	})
	if err != nil {
		return 0, err
	}
	count := max(1, int(res.GetStartingReplicaCount()))
	workers = perReplica * count
	cfg := replica.Config{Name: setName(r.job.GetName()), Title: "batch prediction job " + name.ID(), Count: count, Concurrency: perReplica, Runtime: r.engine.cfg.Runtime, Log: r.log}
	if plan.Native != nil {
		workers = goruntime.GOMAXPROCS(0)
		cfg.Local = replica.Bytes(func(_ context.Context, body []byte) ([]byte, error) { return plan.Native.Predict(body) })
	} else {
		c := plan.Container
		r.route, cfg.Health, cfg.Start = c.PredictRoute, c.HealthRoute, c.Start
		cfg.Workload = func(id string) runtime.Workload {
			w := c.Workload(id, r.job.GetName(), name.Project(), r.job.GetServiceAccount(), modelformat.Needs(res.GetMachineSpec()))
			w.Priority = runtime.PriorityBatch
			return w
		}
		if fits := r.engine.cfg.Fits; fits != nil {
			if err := fits(cfg.Workloads()...); err != nil {
				return 0, err
			}
		}
	}
	r.set = replica.New(cfg)
	return workers, nil
}

// directory is the job's own place below the destination. It depends on the job
// alone, so that a job that starts again writes the same objects.
func directory(job *pb.BatchPredictionJob, model *pb.Model) string {
	base := strings.TrimSuffix(job.GetOutputConfig().GetGcsDestination().GetOutputUriPrefix(), "/")
	name := strings.Map(func(r rune) rune {
		if r == '/' || r < ' ' {
			return '_'
		}
		return r
	}, model.GetDisplayName())
	return fmt.Sprintf("%s/prediction-%s-%s", base, name, job.GetCreateTime().AsTime().UTC().Format("2006_01_02T15_04_05_000Z"))
}

// stream reads, predicts and writes at the same time; what is in memory is
// bounded by the number of workers.
func (r *run) stream(ctx context.Context, inputs []object, dir string, workers int) result {
	at, err := parseURI(dir)
	if err != nil {
		return result{err: err}
	}
	out := &output{stats: &pb.CompletionStats{}}
	group, ctx := errgroup.WithContext(ctx)
	results, failures := r.writer(ctx, group, object{at.bucket, at.name + "/" + resultsFile}), r.writer(ctx, group, object{at.bucket, at.name + "/" + errorsFile})
	out.results, out.failures = results, failures
	order := make(chan *work, workers)
	group.Go(func() error {
		defer close(order)
		return r.read(ctx, inputs, order, group, make(chan struct{}, workers))
	})
	group.Go(func() (err error) {
		defer func() {
			// Without an error the objects become visible, with one they never do.
			_ = results.CloseWithError(err)
			_ = failures.CloseWithError(err)
		}()
		return out.write(ctx, order)
	})
	if err := group.Wait(); err != nil {
		return result{err: err, stats: out.stats, partial: out.partial}
	}
	res := result{directory: dir, stats: out.stats, partial: out.partial}
	if out.stats.GetSuccessfulCount() == 0 && out.stats.GetFailedCount() > 0 {
		res.err = resource.Errorf(codes.FailedPrecondition, "all %d instances failed; the first: %w", out.stats.GetFailedCount(), out.partial[0]).
			WithCause(causeOf(out.partial[0])).WithHint("%s/%s names each", dir, errorsFile)
	}
	return res
}

func causeOf(err error) resource.Cause {
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		return e.Cause
	}
	return resource.CauseInput
}

// writer streams into one object.
func (r *run) writer(ctx context.Context, group *errgroup.Group, o object) *io.PipeWriter {
	in, out := io.Pipe()
	group.Go(func() error {
		attrs := blob.Object{Bucket: o.bucket, Name: o.name, ContentType: "application/jsonl"}
		_, err := r.engine.cfg.Objects.Put(ctx, attrs, in, blob.Conditions{})
		_ = in.CloseWithError(err) // never fails; unblocks whoever still writes
		if err != nil {
			return fmt.Errorf("write gs://%s/%s: %w", o.bucket, o.name, err)
		}
		return nil
	})
	return out
}
