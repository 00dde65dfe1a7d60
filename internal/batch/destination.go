package batch

import (
	"cmp"
	"context"
	"fmt"
	"io"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"golang.org/x/sync/errgroup"

	"tategu/internal/batch/score"
	"tategu/internal/blob"
)

// output takes one of the two files of a section.
type output = io.Writer

// destination is where the results of a job go. A section may be written several
// times: the last time that ended well counts, and it counts once.
type destination interface {
	// section has a section's files written by write, and keeps them if that ends
	// without an error.
	section(ctx context.Context, n int, write func(results, failures output) (score.Stats, error)) (score.Stats, error)
	// commit makes visible what is not yet, once all sections are written.
	commit(ctx context.Context) error
	info() *pb.BatchPredictionJob_OutputInfo
	// failures says where the errors are.
	failures() string
}

// objects are two objects for each section in a directory of the job.
type objects struct {
	store Objects
	dir   object
	total int
	kind  string // content type of results
}

func (r *run) destination(ctx context.Context, model *pb.Model) (destination, error) {
	if r.table {
		return r.tables(ctx)
	}
	at, err := parseURI(cmp.Or(r.plan.Dir, directory(r.job, model)))
	if err != nil {
		return nil, err
	}
	kind := map[string]string{score.JSONL: "application/jsonl", score.CSV: "text/csv", score.Parquet: "application/vnd.apache.parquet"}[r.spec.Output]
	return &objects{store: r.objects, dir: at, total: len(r.plan.Sections), kind: kind}, nil
}

func (o *objects) name(file string, n int) string {
	return fmt.Sprintf("%s/%s-%05d-of-%05d", o.dir.name, file, n, o.total)
}

func (o *objects) section(ctx context.Context, n int, write func(results, failures output) (score.Stats, error)) (stats score.Stats, err error) {
	group, ctx := errgroup.WithContext(ctx)
	results := o.put(ctx, group, o.name("prediction.results", n), o.kind)
	failures := o.put(ctx, group, o.name("prediction.errors_stats", n), "application/jsonl")
	group.Go(func() (err error) {
		defer func() {
			// Without an error the objects become visible, with one they never do.
			_ = results.CloseWithError(err)
			_ = failures.CloseWithError(err)
		}()
		stats, err = write(results, failures)
		return err
	})
	return stats, group.Wait()
}

// put streams into one object.
func (o *objects) put(ctx context.Context, group *errgroup.Group, name, kind string) *io.PipeWriter {
	in, out := io.Pipe()
	group.Go(func() error {
		_, err := o.store.Put(ctx, blob.Object{Bucket: o.dir.bucket, Name: name, ContentType: kind}, in, blob.Conditions{})
		_ = in.CloseWithError(err) // never fails; unblocks whoever still writes
		if err != nil {
			return fmt.Errorf("write gs://%s/%s: %w", o.dir.bucket, name, err)
		}
		return nil
	})
	return out
}

func (o *objects) uri() string { return "gs://" + o.dir.bucket + "/" + o.dir.name }

func (*objects) commit(context.Context) error { return nil }

func (o *objects) failures() string { return o.uri() + "/prediction.errors_stats-*" }

func (o *objects) info() *pb.BatchPredictionJob_OutputInfo {
	return &pb.BatchPredictionJob_OutputInfo{OutputLocation: &pb.BatchPredictionJob_OutputInfo_GcsOutputDirectory{GcsOutputDirectory: o.uri()}}
}
