package sqlite_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// BenchmarkStep writes rows and events in one transaction, as a step of a run with
// many tasks does: what one costs must not grow with their number.
func BenchmarkStep(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n, " rows"), func(b *testing.B) {
			s, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "state.db"))
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			data := make([]byte, 600)
			done := 0
			for b.Loop() {
				err := s.Update(b.Context(), func(tx store.Tx) error {
					for range n {
						done++
						if err := tx.Put(b.Context(), store.Row{Kind: "task", Key: fmt.Sprint("task-", done), Parent: "run", Data: data}); err != nil {
							return err
						}
						if err := tx.Append(b.Context(), "run", "task.running", data[:200]); err != nil {
							return err
						}
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(done), "µs/row")
		})
	}
}
