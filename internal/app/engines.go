package app

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"tategu/internal/api/aiplatform"
	"tategu/internal/batch"
	"tategu/internal/event"
	"tategu/internal/identity"
	"tategu/internal/modelformat"
	"tategu/internal/pipeline"
	"tategu/internal/runtime/inventory"
	"tategu/internal/schedule"
	"tategu/internal/serving"
	"tategu/internal/training"
	"tategu/internal/vector"
)

// runner is what acts over time; it returns when its context ends.
type runner interface {
	Run(ctx context.Context) error
}

// engines act on rows, each on kinds of its own.
type engines struct {
	pipeline *pipeline.Engine
	training *training.Engine
	serving  *serving.Engine
	batch    *batch.Engine
	schedule *schedule.Engine
	events   *event.Outbox
	vector   *vector.Engine
}

type namedEngine struct {
	runner
	name string
}

// list gives the order in which they start.
func (e engines) list() []namedEngine {
	return []namedEngine{
		{e.serving, "serving"}, // first: predictions wait for nobody
		{e.pipeline, "pipeline"},
		{e.training, "training"},
		{e.batch, "batch"},
		{e.schedule, "schedule"},
		{e.events, "events"},
		{e.vector, "vector"},
	}
}

func (m *Main) openEngines(ctx context.Context) (err error) {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own binary: %w", err)
	}
	std := aiplatform.NewStandard(m.store, m.now)
	m.jobs = aiplatform.NewPipelineJobs(std, m.authority, m.admission(), m.schedule.Place, pipelineHold)
	m.schedules = aiplatform.NewSchedules(std, m.jobs, m.capability())
	if m.warehouses, err = m.cfg.openWarehouses(); err != nil {
		return err
	}
	outbox := event.New(event.Config{Store: m.store, Webhooks: m.cfg.Webhooks, Log: m.log, Now: m.now})
	m.engines = engines{
		events: outbox,
		pipeline: pipeline.New(pipeline.Config{
			Store: m.store, Objects: func(as identity.Account) pipeline.Objects { return m.objects.As(as) }, Runtime: m.runtime, Volumes: m.runtime, Secrets: secretDir(m.cfg.Secrets), AtOnce: m.atOnce(), Launcher: self, Log: m.log, Now: m.now,
		}),
		training: training.New(training.Config{Store: m.store, Runtime: m.runtime, Log: m.log, Now: m.now}),
		serving: serving.New(serving.Config{
			Store: m.store, Objects: func(as identity.Account) modelformat.Objects { return m.objects.As(as) }, Rights: m.admission(), Journal: m.blobs, Runtime: m.runtime, Warm: m.runtime, Fits: m.fits, HasImage: m.hasImage, Limit: m.cfg.Limits.Predict, Scaling: m.cfg.Serving.scaling(), Runner: m.cfg.ONNX.modelRunner(), Torch: m.cfg.TorchServe.models(self), GPUs: &inventory.Duty{}, Log: m.log, Now: m.now,
		}),
		batch: batch.New(batch.Config{
			Store: m.store, Objects: func(as identity.Account) batch.Objects { return m.objects.As(as) }, Runtime: m.runtime, Fits: m.fits, HasImage: m.hasImage, Runner: m.cfg.ONNX.modelRunner(), Torch: m.cfg.TorchServe.models(self), Worker: self, Warehouses: m.warehouses, Projects: m.cfg.warehouseProjects(), Temp: m.cfg.Cache, Room: m.cacheRoom, Ended: batchEnded(outbox), Asked: m.asked, Log: m.log, Now: m.now,
		}),
		schedule: schedule.New(schedule.Config{Store: m.store, Prepare: m.schedules.Prepare, Ended: pipeline.Finished, Log: m.log, Now: m.now}),
	}
	if m.engines.vector, err = m.openVectors(ctx); err != nil {
		return err
	}
	for _, c := range slices.Concat(m.engines.serving.Metrics(), m.engines.vector.Metrics(), m.engines.batch.Metrics()) {
		if err := m.registry.Register(c); err != nil {
			return fmt.Errorf("metrics of engines: %w", err)
		}
	}
	return nil
}

// asked is when an endpoint was asked last.
func (m *Main) asked() time.Time { return m.engines.serving.Asked() }
