package batch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	goruntime "runtime"
	"strings"
	"sync"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"

	"tategu/internal/batch/score"
	"tategu/internal/identity"
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
	partialsShown = 10
)

// run is one job at work.
type run struct {
	engine  *Engine
	objects Objects // as the job's account sees them
	log     *slog.Logger
	job     *pb.BatchPredictionJob
	format  string     // of the input
	table   bool       // results go into a table
	spec    score.Spec // of every section, but for its pieces
	plan    *plan

	native *modelformat.Native // nil where a container serves the model
	remote bool                // a container serves it
	set    *replica.Set
	route  string
	places chan struct{} // requests to a container that may be under way
	width  int           // sections that are at work at the same time
	least  int           // replicas at first
	most   int           // and at most

	mu       sync.Mutex
	finished map[int]score.Stats
}

func (e *Engine) run(log *slog.Logger, job *pb.BatchPredictionJob) *run {
	project := ""
	if name, err := resource.ParseName(job.GetName()); err == nil { // else nobody, who may nothing
		project = name.Project()
	}
	return &run{engine: e, objects: e.cfg.Objects(identity.Account{Project: project, Email: job.GetServiceAccount()}), log: log, job: job}
}

// do brings the job to its end.
func (r *run) do(ctx context.Context) result {
	model, err := r.model(ctx)
	if err != nil {
		return result{err: err}
	}
	if err := r.describe(); err != nil {
		return result{err: err}
	}
	if err := r.prepare(ctx, model); err != nil {
		return result{err: err}
	}
	if r.plan, err = r.planned(ctx, model); err != nil {
		return result{err: err}
	}
	if r.finished, err = r.done(ctx); err != nil {
		return result{err: err}
	}
	to, err := r.destination(ctx, model)
	if err != nil {
		return result{err: err}
	}
	var keeping sync.WaitGroup
	if r.set != nil {
		keeping.Go(func() {
			if err := r.set.Run(ctx); err != nil {
				r.log.ErrorContext(ctx, "replica set ended", slog.Any("error", err))
			}
		})
		defer r.stop(ctx, &keeping)
		if err := r.set.WaitReady(ctx); err != nil {
			return result{err: err}
		}
	}
	return r.all(ctx, to)
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

// describe reads what the job says of its rows.
func (r *run) describe() error {
	in, out := Formats(r.job)
	r.format = in
	c := Instances(r.job)
	r.spec = score.Spec{Input: in, Output: out, Shape: score.Shape{Type: c.GetInstanceType(), Key: c.GetKeyField(), Included: c.GetIncludedFields(), Excluded: c.GetExcludedFields()}}
	if r.table = out == formatTable; r.table {
		r.spec.Output = score.JSONL // which the table is filled from
	}
	if in == score.Parquet { // its rows come as lines of JSON
		r.spec.Input = score.JSONL
		if r.spec.Shape.Type == "" {
			r.spec.Shape.Type = "array"
		}
	}
	if p := r.job.GetModelParameters(); p != nil {
		text, err := p.MarshalJSON()
		if err != nil {
			return resource.Invalid("model_parameters", "model_parameters: %w", err)
		}
		r.spec.Parameters = text
	}
	return nil
}

// typed reports that the columns of the output have types.
func (r *run) typed() bool { return r.spec.Output == score.Parquet || r.table }

// prepare makes the set that scores sections, or answers requests.
func (r *run) prepare(ctx context.Context, model *pb.Model) error {
	name, err := resource.ParseName(r.job.GetName())
	if err != nil {
		return err
	}
	res := r.job.GetDedicatedResources()
	if err := checkReplicas(res); err != nil { // jobs of earlier versions were not checked
		return err
	}
	plan, err := r.engine.planner.Plan(ctx, r.objects, model, modelformat.Target{
		Project: name.Project(), DeployedModel: name.ID(), Endpoint: "batch", Machine: res.GetMachineSpec(),
	})
	if err != nil {
		return err
	}
	r.least = max(1, int(res.GetStartingReplicaCount()))
	r.most = max(r.least, int(res.GetMaxReplicaCount()))
	needs := modelformat.Needs(res.GetMachineSpec())
	cores := goruntime.NumCPU()
	if needs.Cores > 0 {
		cores = min(cores, max(1, int(needs.Cores)))
	}
	cfg := replica.Config{Name: setName(r.job.GetName()), Title: "batch prediction job " + name.ID(), Count: r.least, Runtime: r.engine.cfg.Runtime, Log: r.log}
	if plan.Native != nil {
		r.native = plan.Native
		if r.format == score.FileList {
			return resource.Unimplemented("files as instances of a LightGBM or XGBoost model").WithHint("give the job lines of numbers: jsonl, csv or parquet")
		}
		// The parameters are the model's to read: what is wrong with them ends the job
		// before a row is read.
		if _, err := plan.Native.NewBlock(r.spec.Parameters); err != nil {
			return err
		}
		// Each is a section in memory. Workers are on this machine: more of them than it
		// has cores only wait.
		r.width = min(cores*r.most, 2*goruntime.NumCPU())
		if r.engine.cfg.Worker == "" {
			r.width = cores
			return nil
		}
		cfg.Concurrency, cfg.Health = cores, score.HealthRoute
		cfg.QueueBytes = int64(r.width+1) * score.MaxSection
		cfg.Workload = r.worker(plan.File, name, needs)
	} else {
		c := plan.Container
		r.remote, r.spec.JSONPrediction = true, true
		r.route, cfg.Health, cfg.Start, cfg.Concurrency = c.PredictRoute, c.HealthRoute, c.Start, perReplica
		r.places = make(chan struct{}, perReplica*r.most)
		r.width = 2 // one is at work while the next is read; requests have their own bound
		cfg.Workload = func(id string) runtime.Workload {
			w := c.Workload(id, r.job.GetName(), name.Project(), r.job.GetServiceAccount(), needs)
			w.Priority = runtime.PriorityBatch
			return w
		}
	}
	if fits := r.engine.cfg.Fits; fits != nil {
		if err := fits(cfg.Workloads()...); err != nil {
			return err
		}
	}
	r.set = replica.New(cfg)
	return nil
}

// WorkerVerb is the verb of our binary that scores sections.
const WorkerVerb = "batch-worker"

// worker is our own binary as a replica: it evaluates the model file beside the
// server, with its own heap, where it can be killed and given less of the processor.
func (r *run) worker(file string, name resource.Name, needs runtime.Resources) func(id string) runtime.Workload {
	return func(id string) runtime.Workload {
		return runtime.Workload{
			ID: id, Owner: r.job.GetName(), Project: name.Project(), ServiceAccount: r.job.GetServiceAccount(),
			Command: []string{r.engine.cfg.Worker, WorkerVerb, runtime.GCSRoot + "/" + strings.TrimPrefix(file, "gs://")}, Fetch: []string{file},
			Resources: needs, Port: true, Priority: runtime.PriorityBatch, Env: r.secret(),
		}
	}
}

// secret lets workers know the server from other programs of the machine.
func (r *run) secret() map[string]string {
	if r.plan == nil || r.plan.Secret == "" { // there is no plan yet: it is only asked whether they fit
		return nil
	}
	return map[string]string{score.SecretVariable: r.plan.Secret}
}

// directory is the job's own place below the destination. It is kept in the plan, so
// that a job that starts again writes the same objects, whatever its model is called then.
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

// unit is a section on its way to be scored.
type unit struct {
	n    int
	spec score.Spec
	body []byte // room, the head of a request, the section
	head int    // where the section begins

	headLength int

	sums []int64 // of what was read of files here, see score.Stats; nil = workers read them
}

// all scores what is not done yet.
func (r *run) all(ctx context.Context, to destination) result {
	err := r.sections(ctx, to)
	if err == nil {
		err = r.undamaged(ctx)
	}
	if err == nil {
		// Once it has begun it is not left in doubt: a job that is cancelled now succeeds.
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		err = to.commit(ending)
		cancel()
	}
	r.mu.Lock()
	res := result{stats: r.stats(), replicas: r.least, err: err}
	r.mu.Unlock()
	res.partial = r.samples()
	if err != nil {
		return res
	}
	res.output = to.info()
	if res.stats.GetSuccessfulCount() == 0 && res.stats.GetFailedCount() > 0 {
		res.err = resource.Errorf(codes.FailedPrecondition, "all %d instances failed; the first: %w", res.stats.GetFailedCount(), res.partial[0]).
			WithCause(causeOf(res.partial[0])).WithHint("%s names each", to.failures())
	}
	return res
}

func causeOf(err error) resource.Cause {
	if e, ok := errors.AsType[*resource.Error](err); ok && e.Cause != "" {
		return e.Cause
	}
	return resource.CauseInput
}

// sections reads sections in order and has as many scored at a time as there is
// room for: what is in memory is bounded by their number.
func (r *run) sections(ctx context.Context, to destination) error {
	group, ctx := errgroup.WithContext(ctx)
	units, free := make(chan *unit), make(chan []byte, r.width)
	for range r.width {
		free <- nil
		group.Go(func() error {
			for u := range units {
				if err := r.one(ctx, to, u); err != nil {
					return err
				}
				free <- u.body
			}
			return nil
		})
	}
	group.Go(func() error {
		defer close(units)
		return r.read(ctx, free, units)
	})
	return group.Wait()
}

// read makes units of the sections that are not done.
func (r *run) read(ctx context.Context, free <-chan []byte, units chan<- *unit) (err error) {
	src := r.source(r.plan)
	src.places = r.plan.Secret != ""
	defer func() { err = errors.Join(err, src.Close()) }()
	var passed []byte
	for n, s := range r.plan.Sections {
		if r.isDone(n) {
			last := s[len(s)-1]
			if last.To == r.plan.Inputs[last.Input].Length {
				continue
			}
			if _, passed, err = src.section(ctx, s, passed[:0]); err != nil {
				return err
			}
			continue
		}
		var body []byte
		select {
		case body = <-free:
		case <-ctx.Done():
			return ctx.Err()
		}
		u, err := r.unit(ctx, src, n, s, body[:0])
		if err != nil {
			return err
		}
		select {
		case units <- u:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// headRoom is left before a section for the head of its request.
const headRoom = 64 << 10

func (r *run) unit(ctx context.Context, src *fileSource, n int, s section, body []byte) (*unit, error) {
	if cap(body) < headRoom && src.places { // mostly there is nothing to send
		body = make([]byte, headRoom)
	} else if cap(body) < headRoom {
		body = make([]byte, headRoom, headRoom+sectionNative+sectionNative/8)
	}
	spec, body, err := src.section(ctx, s, body[:headRoom])
	if err != nil {
		return nil, err
	}
	return newUnit(n, spec, body)
}

// newUnit writes the head of a section's request into the room before it.
func newUnit(n int, spec score.Spec, body []byte) (*unit, error) {
	head, err := score.AppendSpec(nil, spec)
	if err != nil {
		return nil, err
	}
	if len(head) > headRoom { // very many small inputs
		return &unit{n: n, spec: spec, body: append(head, body[headRoom:]...), head: len(head), headLength: len(head)}, nil
	}
	at := headRoom - len(head)
	copy(body[at:], head)
	return &unit{n: n, spec: spec, body: body, head: headRoom, headLength: len(head)}, nil
}

func (r *run) isDone(n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.finished[n]
	return ok
}

// one scores a section, writes its files and records that.
func (r *run) one(ctx context.Context, to destination, u *unit) error {
	stats, err := to.section(ctx, u.n, func(results, failures output) (score.Stats, error) { return r.score(ctx, u, results, failures) })
	for n := 1; err != nil && n < attempts && again(ctx, err); n++ {
		r.log.WarnContext(ctx, "a section is scored again", slog.Int("section", u.n), slog.Any("error", err))
		if !pause(ctx, retryFirst<<n) {
			return ctx.Err()
		}
		stats, err = to.section(ctx, u.n, func(results, failures output) (score.Stats, error) { return r.score(ctx, u, results, failures) })
	}
	if err != nil {
		return err
	}
	if err := r.record(ctx, u.n, stats); err != nil {
		return err
	}
	r.grow()
	return nil
}

// again reports a failure that another replica may not have.
func again(ctx context.Context, err error) bool {
	return ctx.Err() == nil && (errors.Is(err, score.ErrBroken) || resource.CodeOf(err) == codes.Unavailable)
}

// grow starts more replicas, up to max_replica_count, while there are sections for them.
func (r *run) grow() {
	if r.set == nil || r.most == r.least {
		return
	}
	r.mu.Lock()
	left := len(r.plan.Sections) - len(r.finished)
	r.mu.Unlock()
	if ready := r.set.Ready(); left > 2*ready {
		r.set.Resize(min(r.most, max(r.least, ready+1)))
	}
}
