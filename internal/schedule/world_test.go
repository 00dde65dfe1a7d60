package schedule_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/schedule"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	parent = "projects/p/locations/l"
	name   = parent + "/schedules/7"
)

// world is an engine over a real store, in a bubble whose clock a test moves. The
// bubble begins on 2000-01-01; offset is by how much the machine's clock was set.
type world struct {
	t       *testing.T
	store   store.Store
	offset  atomic.Int64
	prepare func(ctx context.Context, s *pb.Schedule, tick time.Time) (schedule.Run, error)
	stop    func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "t.db"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, store: st}
	w.prepare = func(_ context.Context, s *pb.Schedule, tick time.Time) (schedule.Run, error) {
		return job{name: parent + "/pipelineJobs/" + schedule.RunID("row", "7", tick), schedule: s.Name}, nil
	}
	return w
}

// inWorld runs a test in a bubble; the engine and the store end with it.
func inWorld(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		st := w.store
		defer func() {
			w.stop()
			if err := st.Close(); err != nil {
				t.Error(err)
			}
		}()
		w.run()
		test(w)
	})
}

// job is a run that stays RUNNING until a test ends it.
type job struct{ name, schedule string }

func (j job) Name() string { return j.name }

func (j job) Insert(ctx context.Context, tx store.Tx) error {
	if _, err := tx.Get(ctx, resource.KindPipelineJobs, j.name); !resource.IsNotFound(err) {
		return errors.New("it exists: " + j.name)
	}
	return put(ctx, tx, &pb.PipelineJob{Name: j.name, ScheduleName: j.schedule, State: pb.PipelineState_PIPELINE_STATE_RUNNING})
}

func put(ctx context.Context, tx store.Tx, j *pb.PipelineJob) error {
	return store.PutMessage(ctx, tx, store.Row{Kind: resource.KindPipelineJobs, Key: j.Name, Parent: parent, State: j.State.String()}, j)
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }

// run starts an engine, as a server does; stop ends it.
func (w *world) run() {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan error, 1)
	e := schedule.New(schedule.Config{
		Store: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now,
		Prepare: func(ctx context.Context, s *pb.Schedule, tick time.Time) (schedule.Run, error) {
			return w.prepare(ctx, s, tick)
		},
		Ended: func(s pb.PipelineState) bool { return s == pb.PipelineState_PIPELINE_STATE_SUCCEEDED },
	})
	go func() { ended <- e.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// until lets time go by up to a moment of the machine's clock.
func (w *world) until(at string) { w.pass(w.at(at).Sub(w.now())) }

func (w *world) at(text string) time.Time {
	w.t.Helper()
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		w.t.Fatal(err)
	}
	return t
}

// create begins a schedule, as the API does.
func (w *world) create(cron string, edit func(s *pb.Schedule)) {
	w.t.Helper()
	s := &pb.Schedule{Name: name, TimeSpecification: &pb.Schedule_Cron{Cron: cron}, MaxConcurrentRunCount: 1, CreateTime: timestamppb.New(w.now())}
	if edit != nil {
		edit(s)
	}
	if err := schedule.Begin(s, w.now()); err != nil {
		w.t.Fatal(err)
	}
	w.save(s)
}

func (w *world) save(s *pb.Schedule) {
	w.t.Helper()
	err := w.store.Update(w.t.Context(), func(tx store.Tx) error {
		return store.PutMessage(w.t.Context(), tx, store.Row{Kind: resource.KindSchedules, Key: s.Name, Parent: parent, State: s.State.String()}, s)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) get() *pb.Schedule {
	w.t.Helper()
	s := &pb.Schedule{}
	if _, err := store.GetMessage(w.t.Context(), w.store, resource.KindSchedules, name, s); err != nil {
		w.t.Fatal(err)
	}
	return s
}

// change does to the schedule what the API does.
func (w *world) change(edit func(s *pb.Schedule) error) {
	w.t.Helper()
	s := w.get()
	if err := edit(s); err != nil {
		w.t.Fatal(err)
	}
	w.save(s)
}

func (w *world) update(edit func(s *pb.Schedule)) {
	w.t.Helper()
	w.change(func(s *pb.Schedule) error {
		before := proto.CloneOf(s)
		edit(s)
		return schedule.Change(before, s, w.now())
	})
}

// ran gives the ticks that have a run, in order.
func (w *world) ran() string {
	w.t.Helper()
	rows, err := w.store.List(w.t.Context(), store.Query{Kind: resource.KindPipelineJobs})
	if err != nil {
		w.t.Fatal(err)
	}
	var ticks []string
	for _, row := range rows {
		tick, err := w.store.Get(w.t.Context(), resource.KindScheduledRuns, row.Key)
		if err != nil {
			w.t.Fatal(err)
		}
		ticks = append(ticks, string(tick.Data))
	}
	slices.Sort(ticks)
	return strings.Join(ticks, " ")
}

func (w *world) wantRan(ticks ...string) {
	w.t.Helper()
	if got, want := w.ran(), strings.Join(ticks, " "); got != want {
		w.t.Fatalf("ran  %s\nwant %s", got, want)
	}
	if n := w.get().StartedRunCount; n != int64(len(ticks)) {
		w.t.Fatalf("started_run_count is %d, and %d ran", n, len(ticks))
	}
}

// finish ends the run of a tick.
func (w *world) finish(tick string) {
	w.t.Helper()
	j := &pb.PipelineJob{Name: parent + "/pipelineJobs/" + schedule.RunID("row", "7", w.at(tick)), ScheduleName: name, State: pb.PipelineState_PIPELINE_STATE_SUCCEEDED}
	if err := w.store.Update(w.t.Context(), func(tx store.Tx) error { return put(w.t.Context(), tx, j) }); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func (w *world) wantNext(text string) {
	w.t.Helper()
	got := "none"
	if next := w.get().NextRunTime; next != nil {
		got = next.AsTime().Format(time.RFC3339)
	}
	if got != text {
		w.t.Fatalf("next_run_time is %s, want %s", got, text)
	}
}
