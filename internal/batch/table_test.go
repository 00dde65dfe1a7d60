package batch_test

import (
	"database/sql"
	"path/filepath"
	"strings"
	"testing"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"

	"tategu/internal/warehouse"
	"tategu/internal/warehouse/postgres"
	"tategu/internal/warehouse/sqlite"
	"tategu/internal/warehouse/warehousetest"
)

func into(uri string) func(*pb.BatchPredictionJob) {
	return func(j *pb.BatchPredictionJob) {
		j.OutputConfig = &pb.BatchPredictionJob_OutputConfig{PredictionsFormat: "bigquery", Destination: &pb.BatchPredictionJob_OutputConfig_BigqueryDestination{
			BigqueryDestination: &pb.BigQueryDestination{OutputUri: uri},
		}}
		j.InstanceConfig = &pb.BatchPredictionJob_InstanceConfig{KeyField: "id"}
	}
}

// tableOf runs a job into a table and looks at it.
func tableOf(t *testing.T, made warehouse.Warehouse, db *sql.DB) {
	t.Helper()
	w := newWorld(t)
	w.stop()
	w.warehouses = map[string]warehouse.Warehouse{"wh": made}
	w.open()
	line := func(id string) string {
		return `{"id":` + id + `,"Column_0":1,"Column_1":2,"Column_2":3,"Column_3":4,"Column_4":5,"Column_5":6}`
	}
	w.write("gs://b/in.jsonl", line("7"), line("9007199254740993"), line(`"x"`), `{"id":3}`, line("\"\xff\""))
	job := w.ended(w.submit("native", "gs://b/in.jsonl", into("bq://wh.scores")))
	if job.GetState() != pb.JobState_JOB_STATE_SUCCEEDED || job.GetCompletionStats().GetSuccessfulCount() != 2 || job.GetCompletionStats().GetFailedCount() != 3 {
		t.Fatalf("%v", job)
	}
	if o := job.GetOutputInfo(); o.GetBigqueryOutputDataset() != "bq://wh" || o.GetBigqueryOutputTable() != "scores" {
		t.Errorf("output %v", o)
	}
	var n, errors int
	var p float64
	if err := db.QueryRowContext(t.Context(), `SELECT count(*), max(prediction) FROM scores WHERE key IN (7, 9007199254740993)`).Scan(&n, &p); err != nil || n != 2 || p == 0 {
		t.Errorf("%d rows, %v, %v", n, p, err)
	}
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM scores_errors WHERE code = 3 AND uri = 'gs://b/in.jsonl' AND line IN (3, 4, 5)`).Scan(&errors); err != nil || errors != 3 {
		t.Errorf("%d errors, %v", errors, err)
	}
	again := w.ended(w.submit("native", "gs://b/in.jsonl", into("bq://wh.scores")))
	if codes.Code(again.GetError().GetCode()) != codes.AlreadyExists {
		t.Errorf("got %v", again.GetError())
	}
	w.stop()
	w.projects = map[string][]string{"wh": {"another"}}
	w.open()
	if job := w.ended(w.submit("native", "gs://b/in.jsonl", into("bq://wh.more"))); codes.Code(job.GetError().GetCode()) != codes.NotFound {
		t.Errorf("a warehouse of another project: %v", job.GetError())
	}
	other := w.ended(w.submit("native", "gs://b/in.jsonl", into("bq://nowhere.scores")))
	if !strings.Contains(other.GetError().GetMessage(), `there is no warehouse "nowhere"`) {
		t.Errorf("got %v", other.GetError())
	}
}

func TestTableInSQLite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "w.db")
	w, err := sqlite.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tableOf(t, w, db)
}

func TestTableInPostgres(t *testing.T) {
	t.Parallel()
	dsn := warehousetest.Postgres(t)
	w, err := postgres.Open(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.Close() })
	db, err := sql.Open("postgres", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tableOf(t, w, db)
}
