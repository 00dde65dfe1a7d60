package batch_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/batch"
	"tategu/internal/columnar"
	"tategu/internal/store"
)

func packed(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func formats(in, out string) func(*pb.BatchPredictionJob) {
	return func(j *pb.BatchPredictionJob) {
		j.InputConfig.InstancesFormat, j.OutputConfig.PredictionsFormat = in, out
	}
}

// predictions gives what a job wrote as JSON values, in order.
func (w *world) predictions(job *pb.BatchPredictionJob) (all []string) {
	w.t.Helper()
	found := w.objects.under(job.GetOutputInfo().GetGcsOutputDirectory() + "/")
	for _, name := range sortedKeys(found) {
		text := found[name]
		switch {
		case !strings.HasPrefix(name, "prediction.results-"):
		case strings.HasPrefix(text, columnar.Magic):
			f, err := columnar.Open(strings.NewReader(text), int64(len(text)))
			if err != nil {
				w.t.Fatal(err)
			}
			if err := f.Lines(0, f.Len(), func(line []byte) error { all = append(all, string(line)); return nil }); err != nil {
				w.t.Fatal(err)
			}
		default:
			all = append(all, strings.Split(strings.TrimSuffix(text, "\n"), "\n")...)
		}
	}
	return all
}

func sortedKeys(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// What rows of Parquet take in memory is not what they take in the file.
func TestParquetThatGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	file := func(sizes ...int) string {
		var b bytes.Buffer
		out, err := columnar.NewWriter(&b, columnar.Column{Name: "text"})
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range sizes {
			out.Text(0, bytes.Repeat([]byte("a"), size))
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	w.write("gs://b/in.parquet", file(slices.Repeat([]int{32 << 10}, 600)...))
	w.write("gs://b/row.parquet", file(65<<20))
	job := w.ended(w.submit("native", "gs://b/in.parquet", formats("parquet", "jsonl")))
	if found := w.objects.under("gs://b/out/"); job.GetCompletionStats().GetFailedCount() != 600 || len(found) < 6 {
		t.Errorf("%d rows in %d files", job.GetCompletionStats().GetFailedCount(), len(found))
	}
	job = w.ended(w.submit("native", "gs://b/row.parquet", formats("parquet", "jsonl")))
	if text := job.GetError().GetMessage(); !strings.Contains(text, "a row is longer than 64 MiB") {
		t.Errorf("%.300s", text)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("gs://b/plain.jsonl", "[1,2,3,4,5,6]")
	plain := w.predictions(w.ended(w.submit("native", "gs://b/plain.jsonl", nil)))
	var first struct{ Prediction json.Number }
	if err := json.Unmarshal([]byte(plain[0]), &first); err != nil {
		t.Fatal(err)
	}
	p := first.Prediction.String()
	header := "id,Column_0,Column_1,Column_2,Column_3,Column_4,Column_5"
	w.write("gs://b/in.csv", header, `"k,1",1,2,3,4,5,6`, "", `7,1,2,3,4,5,`)
	w.write("gs://b/in.csv.gz", packed(t, header+"\r\n8,1,2,3,4,5,6\r\n"))
	w.write("gs://b/keys.jsonl", `{"id":9007199254740993,"Column_0":1,"Column_1":2,"Column_2":3,"Column_3":4,"Column_4":5,"Column_5":6}`, `{"id":"x","Column_0":1,"Column_1":2,"Column_2":3,"Column_3":4,"Column_4":5,"Column_5":6}`)
	var b bytes.Buffer
	pw, err := columnar.NewWriter(&b, columnar.Column{Name: "a", Kind: columnar.Text}, columnar.Column{Name: "x", Kind: columnar.Floats})
	if err != nil {
		t.Fatal(err)
	}
	pw.Text(0, []byte("row"))
	pw.Floats(1, []float64{1, 2, 3, 4, 5, 6})
	if err := pw.Close(); err != nil {
		t.Fatal(err)
	}
	w.write("gs://b/in.parquet", b.String())
	key := func(j *pb.BatchPredictionJob) {
		j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{KeyField: "id"}
	}
	for name, c := range map[string]struct {
		uri, in, out string
		change       func(*pb.BatchPredictionJob)
		want         []string
		failed       int64
	}{
		"csv to jsonl by key": {"gs://b/in.csv", "csv", "jsonl", key, []string{`{"key":"k,1","prediction":` + p + `}`, `{"key":7,"prediction":*}`}, 0},
		"csv to csv by key":   {"gs://b/in.csv", "csv", "csv", key, []string{"key,prediction\r", `"k,1",` + p + "\r", "7,*\r"}, 0},
		"csv of named objects": {
			"gs://b/in.csv", "csv", "csv", func(j *pb.BatchPredictionJob) {
				j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{InstanceType: "object", ExcludedFields: []string{"id"}}
			}, []string{header + ",prediction\r", `"k,1",1,2,3,4,5,6,` + p + "\r", "7,1,2,3,4,5,,*\r"}, 0,
		},
		"key by a label": {"gs://b/in.csv", "csv", "jsonl", func(j *pb.BatchPredictionJob) {
			key(j)
			j.InstanceConfig.KeyField = "Column_0" // as for formats, the label wins
			j.Labels = map[string]string{batch.LabelKey: "id"}
		}, []string{`{"key":"k,1","prediction":` + p + `}`, `{"key":7,"prediction":*}`}, 0},
		"csv with gzip":          {"gs://b/in.csv.gz", "csv", "jsonl", key, []string{`{"key":8,"prediction":` + p + `}`}, 0},
		"jsonl to parquet":       {"gs://b/plain.jsonl", "jsonl", "parquet", nil, []string{`{"instance":[1,2,3,4,5,6],"prediction":` + p + `}`}, 0},
		"keys of the first kind": {"gs://b/keys.jsonl", "jsonl", "parquet", key, []string{`{"key":9007199254740993,"prediction":` + p + `}`}, 1},
		"parquet to csv": {"gs://b/in.parquet", "parquet", "csv", func(j *pb.BatchPredictionJob) {
			j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{KeyField: "a"}
		}, nil, 1}, // a list is no number
		"formats by labels": {"gs://b/plain.jsonl", "csv", "csv", func(j *pb.BatchPredictionJob) {
			j.Labels = map[string]string{batch.LabelInput: "jsonl", batch.LabelOutput: "parquet"}
		}, []string{`{"instance":[1,2,3,4,5,6],"prediction":` + p + `}`}, 0},
	} {
		job := w.ended(w.submit("native", c.uri, func(j *pb.BatchPredictionJob) {
			formats(c.in, c.out)(j)
			if c.change != nil {
				c.change(j)
			}
		}))
		var got []string
		if job.GetOutputInfo() != nil {
			got = w.predictions(job)
		}
		ok := len(got) == len(c.want) && job.GetCompletionStats().GetFailedCount() == c.failed
		for i := 0; ok && i < len(got); i++ {
			before, after, any := strings.Cut(c.want[i], "*")
			ok = any && strings.HasPrefix(got[i], before) && strings.HasSuffix(got[i], after) || got[i] == c.want[i]
		}
		if !ok {
			t.Errorf("%s: %v %v\ngot  %q\nwant %q", name, job.GetState(), job.GetError(), got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*pb.BatchPredictionJob){
		"tf-record":          formats("tf-record", "jsonl"),
		"is not set":         formats("", "jsonl"),
		"predictions_format": formats("jsonl", "xml"),
		"they have no fields": func(j *pb.BatchPredictionJob) {
			formats("file-list", "jsonl")(j)
			j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{KeyField: "k"}
		},
		"exclude each other": func(j *pb.BatchPredictionJob) {
			j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{IncludedFields: []string{"a"}, ExcludedFields: []string{"b"}}
		},
		"neither object nor": func(j *pb.BatchPredictionJob) {
			j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{InstanceType: "x"}
		},
		"of the form gs://": func(j *pb.BatchPredictionJob) { j.InputConfig.GetGcsSource().Uris[0] = "s3://x" },
		"batch_size is negative": func(j *pb.BatchPredictionJob) {
			j.ManualBatchTuningParameters = &pb.ManualBatchTuningParameters{BatchSize: -1}
		},
	} {
		job := &pb.BatchPredictionJob{
			InputConfig:  &pb.BatchPredictionJob_InputConfig{InstancesFormat: "jsonl", Source: &pb.BatchPredictionJob_InputConfig_GcsSource{GcsSource: &pb.GcsSource{Uris: []string{"gs://b/x"}}}},
			OutputConfig: &pb.BatchPredictionJob_OutputConfig{PredictionsFormat: "jsonl", Destination: &pb.BatchPredictionJob_OutputConfig_GcsDestination{GcsDestination: &pb.GcsDestination{OutputUriPrefix: "gs://b/out"}}},
		}
		if err := batch.Check(job); err != nil {
			t.Fatal(err)
		}
		change(job)
		if err := batch.Check(job); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}

// TestSections: large inputs become several files, of which each record is in one; a
// server that starts again does only what is left.
func TestSections(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const rows = 200_000 // 20 MB: three sections
	var b strings.Builder
	for i := range rows {
		fmt.Fprintf(&b, `{"id":%d,"Column_0":%d.25,"Column_1":2,"Column_2":3,"Column_3":4,"Column_4":5,"Column_5":%d}`+"\n", i, i%7, i)
	}
	w.write("gs://b/in.jsonl", b.String())
	name := w.submit("native", "gs://b/in.jsonl", func(j *pb.BatchPredictionJob) {
		formats("jsonl", "parquet")(j)
		j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{KeyField: "id"}
	})
	w.until(name, func(j *pb.BatchPredictionJob) bool { return j.GetCompletionStats().GetSuccessfulCount() > 0 })
	w.stop()
	before := w.objects.under("gs://b/out/")
	w.open()
	job := w.ended(name)
	if job.GetCompletionStats().GetSuccessfulCount() != rows || job.GetCompletionStats().GetIncompleteCount() != 0 {
		t.Fatalf("%v %v", job.GetCompletionStats(), job.GetError())
	}
	if len(before) == 0 {
		t.Error("nothing was written before the server was stopped")
	}
	all := w.predictions(job)
	if len(all) != rows {
		t.Fatalf("%d results", len(all))
	}
	for i, line := range all {
		if !strings.HasPrefix(line, fmt.Sprintf(`{"key":%d,"prediction":`, i)) {
			t.Fatalf("result %d is %s", i, line)
		}
	}
	if n := len(w.objects.under(job.GetOutputInfo().GetGcsOutputDirectory() + "/")); n != 6 {
		t.Errorf("%d files", n)
	}
	if left, err := w.store.List(context.Background(), store.Query{Kind: "batchSection"}); err != nil || len(left) > 0 {
		t.Errorf("%d rows are left of the job, %v", len(left), err)
	}
}

// TestHalves: two bad instances in batches of 32 are found, and the others pass.
func TestHalves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.echo()
	in := rows(100)
	in[37], in[80] = `"fail"`, `"fail"`
	w.write("gs://b/in.jsonl", in...)
	job := w.ended(w.submit("picky", "gs://b/in.jsonl", func(j *pb.BatchPredictionJob) {
		j.ManualBatchTuningParameters = &pb.ManualBatchTuningParameters{BatchSize: 32}
	}))
	if job.GetCompletionStats().GetSuccessfulCount() != 98 || job.GetCompletionStats().GetFailedCount() != 2 {
		t.Fatalf("%v %v", job.GetCompletionStats(), job.GetError())
	}
	if len(job.GetPartialFailures()) != 2 || !strings.Contains(job.GetPartialFailures()[0].GetMessage(), "line 38 of gs://b/in.jsonl") || codes.Code(job.GetPartialFailures()[0].GetCode()) != codes.FailedPrecondition {
		t.Errorf("partial failures %v", job.GetPartialFailures())
	}
}

// TestFileList: the instances are the bytes of the files, and their URIs stand beside
// the predictions.
func TestFileList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.echo()
	w.write("gs://b/1.png", "one")
	w.write("gs://b/2.png", "two")
	w.write("gs://theirs/3.png", "three")
	w.write("gs://b/list.txt", "gs://b/1.png", "gs://b/none.png", "gs://b/2.png", "gs://theirs/3.png")
	job := w.ended(w.submit("echo", "gs://b/list.txt", formats("file-list", "jsonl")))
	want := []string{`{"instance":"gs://b/1.png","prediction":{"b64": "b25l"}}`, `{"instance":"gs://b/2.png","prediction":{"b64": "dHdv"}}`}
	if got := w.predictions(job); !slices.Equal(got, want) || job.GetCompletionStats().GetFailedCount() != 2 || codes.Code(job.GetPartialFailures()[1].GetCode()) != codes.PermissionDenied {
		t.Errorf("%q, %v", got, job)
	}
	native := w.ended(w.submit("native", "gs://b/list.txt", formats("file-list", "jsonl")))
	if codes.Code(native.GetError().GetCode()) != codes.Unimplemented {
		t.Errorf("got %v", native.GetError())
	}
}

// TestLinesThatAreNoJSON: of a model file's rows too, a line that is not JSON is told as
// that, and not as an instance of the wrong form.
func TestLinesThatAreNoJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("gs://b/in.jsonl", "x,1", `{"half":`)
	job := w.ended(w.submit("native", "gs://b/in.jsonl", nil))
	if got := job.GetError().GetMessage(); !strings.Contains(got, "all 2 instances failed") || !strings.Contains(got, "line 1 of gs://b/in.jsonl: the line is not valid JSON") {
		t.Errorf("%s", got)
	}
}
