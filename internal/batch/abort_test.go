package batch_test

import (
	"context"
	"database/sql"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"tategu/internal/batch"
	"tategu/internal/store"
	"tategu/internal/warehouse"
	"tategu/internal/warehouse/sqlite"
)

// hindered is a warehouse in which the second part waits for hinder, which may fail it.
type hindered struct {
	warehouse.Warehouse

	hinder func(ctx context.Context) error
}

func (h hindered) Begin(ctx context.Context, id string, tables ...warehouse.Table) (warehouse.Load, error) {
	l, err := h.Warehouse.Begin(ctx, id, tables...)
	return hinderedLoad{l, h.hinder}, err
}

type hinderedLoad struct {
	warehouse.Load

	hinder func(ctx context.Context) error
}

func (l hinderedLoad) Part(ctx context.Context, n int, rows func(func(warehouse.Row) error) error) error {
	if n == 1 {
		if err := l.hinder(ctx); err != nil {
			return err
		}
	}
	return l.Load.Part(ctx, n, rows)
}

// twoSections starts a job of two sections, of which the second is hindered once the
// first is done.
func twoSections(t *testing.T, hinder func(ctx context.Context, w *world) error) (w *world, db *sql.DB, job string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "w.db")
	made, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = made.Close() })
	if db, err = sql.Open("sqlite", path); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	w = newWorld(t)
	w.stop()
	w.warehouses = map[string]warehouse.Warehouse{"wh": hindered{made, func(ctx context.Context) error {
		watch := w.store.Watch("batchSection")
		defer watch.Close()
		for {
			done, err := w.store.List(ctx, store.Query{Kind: "batchSection", Parent: job})
			if err != nil {
				return err
			}
			if len(done) > 0 {
				return hinder(ctx, w)
			}
			if _, err := watch.Next(ctx); err != nil {
				return err
			}
		}
	}}}
	w.open()
	w.write("gs://b/in/1.csv", "id,Column_0,Column_1,Column_2,Column_3,Column_4,Column_5", "1,1,2,3,4,5,6")
	w.write("gs://b/in/2.csv", "Column_0,id,Column_1,Column_2,Column_3,Column_4,Column_5", "1,2,2,3,4,5,6")
	w.submit("native", "gs://b/in", func(j *pb.BatchPredictionJob) {
		into("bq://wh.scores")(j)
		j.InputConfig.InstancesFormat = "csv"
		j.InstanceConfig.InstanceType = "object"
		job = j.Name // before the engine hears of it
	})
	return w, db, job
}

func left(t *testing.T, db *sql.DB) (n int) {
	t.Helper()
	err := db.QueryRowContext(t.Context(), `SELECT (SELECT count(*) FROM sqlite_master WHERE name LIKE 'tategu_stage%') + (SELECT count(*) FROM tategu_loads)`).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A job that waits for room on the disk loses none of the rows that it had written.
func TestTableAfterAFullDisk(t *testing.T) {
	t.Parallel()
	var tries atomic.Int32
	w, db, name := twoSections(t, func(context.Context, *world) error {
		if tries.Add(1) == 1 {
			return syscall.ENOSPC
		}
		return nil
	})
	if job := w.ended(name); job.GetState() != pb.JobState_JOB_STATE_SUCCEEDED || job.GetCompletionStats().GetSuccessfulCount() != 2 {
		t.Fatal(job)
	}
	var n int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM scores`).Scan(&n); err != nil || n != 2 {
		t.Errorf("%d rows, %v", n, err)
	}
}

// A job that is cancelled, or fails, leaves nothing in the warehouse.
func TestTableOfACancelledJob(t *testing.T) {
	t.Parallel()
	w, db, name := twoSections(t, func(ctx context.Context, _ *world) error {
		<-ctx.Done()
		return ctx.Err()
	})
	job := proto.CloneOf(w.until(name, func(j *pb.BatchPredictionJob) bool { return j.GetCompletionStats().GetSuccessfulCount() == 1 }))
	job.State = pb.JobState_JOB_STATE_CANCELLING
	w.put(job)
	if job := w.ended(name); job.GetState() != pb.JobState_JOB_STATE_CANCELLED {
		t.Fatal(job)
	}
	if n := left(t, db); n != 0 {
		t.Errorf("%d tables and marks are left", n)
	}
}

func TestTableOfAFailedJob(t *testing.T) {
	t.Parallel()
	w, db, name := twoSections(t, func(context.Context, *world) error { return syscall.EIO })
	if job := w.ended(name); job.GetState() != pb.JobState_JOB_STATE_FAILED {
		t.Fatal(job)
	}
	if n := left(t, db); n != 0 {
		t.Errorf("%d tables and marks are left", n)
	}
}

// All results are in one directory, also if the model has another name when the server
// starts again.
func TestModelRenamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.objects.before = func(ctx context.Context, name string) error {
		if strings.HasSuffix(name, "-00001-of-00002") {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	w.write("gs://b/in/1.csv", "a,b,c,d,e,f", "1,2,3,4,5,6")
	w.write("gs://b/in/2.csv", "a,b,c,d,e,g", "1,2,3,4,5,6")
	name := w.submit("native", "gs://b/in", func(j *pb.BatchPredictionJob) { j.InputConfig.InstancesFormat = "csv" })
	w.until(name, func(j *pb.BatchPredictionJob) bool { return j.GetCompletionStats().GetSuccessfulCount() == 1 })
	w.rename("native", "another name")
	w.stop()
	w.objects.before = nil
	w.open()
	job := w.ended(name)
	found := w.objects.under(job.GetOutputInfo().GetGcsOutputDirectory() + "/")
	if job.GetState() != pb.JobState_JOB_STATE_SUCCEEDED || len(found) != 4 {
		t.Errorf("%v has %d files", job, len(found))
	}
}

// Numbers of replicas for which no server has the memory are refused, and do not take it.
func TestReplicaCounts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("gs://b/in.jsonl", rows(3)...)
	for _, c := range []struct{ first, most int32 }{{-1, 0}, {0, -1}, {3, 2}, {1, 1 << 30}, {1 << 30, 0}} {
		asked := &pb.BatchDedicatedResources{StartingReplicaCount: c.first, MaxReplicaCount: c.most}
		job := &pb.BatchPredictionJob{}
		name := w.submit("native", "gs://b/in.jsonl", func(j *pb.BatchPredictionJob) {
			j.DedicatedResources = asked
			job = proto.CloneOf(j)
		})
		if err := batch.Check(job); err == nil || !strings.Contains(err.Error(), "replica_count") {
			t.Errorf("%v: got %v", c, err)
		}
		if job := w.ended(name); codes.Code(job.GetError().GetCode()) != codes.InvalidArgument {
			t.Errorf("%v: got %v", c, job.GetError())
		}
	}
}
