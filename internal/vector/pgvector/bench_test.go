package pgvector

import (
	"bufio"
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
	"tategu/internal/telemetry"
	"tategu/internal/vector"
	"tategu/internal/vector/ann"
)

// BenchmarkFind asks a database (TATEGU_TEST_PGVECTOR_DSN) of a set that bench-vector made
// (TATEGU_BENCH_VECTORS, a path without its suffix), one query a call.
func BenchmarkFind(b *testing.B) {
	dsn, stem := os.Getenv("TATEGU_TEST_PGVECTOR_DSN"), os.Getenv("TATEGU_BENCH_VECTORS")
	if dsn == "" || stem == "" {
		b.Skip("TATEGU_TEST_PGVECTOR_DSN and TATEGU_BENCH_VECTORS are not set")
	}
	base, queries := readVectors(b, stem+".base"), readVectors(b, stem+".queries")
	rows, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer rows.Close()
	log, err := telemetry.NewLogger(b.Output(), telemetry.Text, "error")
	if err != nil {
		b.Fatal(err)
	}
	backend, err := New(Config{Store: rows, DSN: dsn, Schema: "bench" + resource.NewID(), Log: log, Now: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	index := vector.Index{Name: "projects/p/locations/l/indexes/bench", Config: vector.Config{Dimensions: len(base[0]), Measure: ann.Measure{Distance: ann.Cosine}, Recall: 0.95}}
	var src vector.Points
	for i, v := range base {
		src.Put = append(src.Put, &pb.IndexDatapoint{DatapointId: strconv.Itoa(i), FeatureVector: v})
	}
	start := time.Now()
	if err := backend.Replace(b.Context(), index, true, src, done); err != nil {
		b.Fatal(err)
	}
	m, err := readManifest(b.Context(), rows, index.Name)
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("%d x %d: built in %.0f s; %s, ef_search %d, recall %.3f on its own datapoints", len(base), len(base[0]), time.Since(start).Seconds(), m.Current.method(), m.Current.Beam, m.Current.Recall)
	every := func(*pb.IndexDatapoint) bool { return true }
	const checks = 20
	var sum float64
	for _, q := range queries[:checks] {
		out, err := backend.Find(b.Context(), index, []vector.Query{{Point: &pb.IndexDatapoint{FeatureVector: q}, Neighbors: 10}}, false)
		if err != nil {
			b.Fatal(err)
		}
		sum += hits(out[0], src.Put, index.Config.Measure, q, every)
	}
	n := 0
	for b.Loop() {
		q := queries[n%len(queries)]
		if _, err := backend.Find(b.Context(), index, []vector.Query{{Point: &pb.IndexDatapoint{FeatureVector: q}, Neighbors: 10}}, false); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(sum/checks, "recall@10")
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "queries/s")
	if err := rows.Update(b.Context(), func(tx store.Tx) error { return backend.Drop(b.Context(), tx, index.Name) }); err != nil {
		b.Fatal(err)
	}
	if err := backend.clean(b.Context()); err != nil {
		b.Fatal(err)
	}
}

// readVectors reads a file of bench/vector: rows and dimensions as uint32, then float32.
func readVectors(b *testing.B, path string) [][]float32 {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	var head [2]uint32
	if err := binary.Read(r, binary.LittleEndian, &head); err != nil {
		b.Fatal(err)
	}
	out := make([][]float32, head[0])
	for i := range out {
		out[i] = make([]float32, head[1])
		if err := binary.Read(r, binary.LittleEndian, out[i]); err != nil {
			b.Fatal(err)
		}
	}
	return out
}
