package runner

import (
	"strconv"
	"sync/atomic"
)

// stats counts what the runner did, for GET /metrics.
type stats struct {
	requests, failed, runs, rows, merged atomic.Int64
}

func (s *stats) batch(batch []*job) {
	s.runs.Add(1)
	for _, j := range batch {
		s.rows.Add(int64(j.rows))
	}
	if len(batch) > 1 {
		s.merged.Add(int64(len(batch)))
	}
}

// appendText writes OpenMetrics.
func (s *stats) appendText(b []byte) []byte {
	for _, m := range []struct {
		name, help string
		value      int64
	}{
		{"tategu_runner_requests", "Requests for predictions.", s.requests.Load()},
		{"tategu_runner_failed_requests", "Of these, those that were not answered with predictions.", s.failed.Load()},
		{"tategu_runner_runs", "Batches that the model was run with.", s.runs.Load()},
		{"tategu_runner_rows", "Rows in these batches.", s.rows.Load()},
		{"tategu_runner_merged_requests", "Requests, or parts of them, that shared a batch with others.", s.merged.Load()},
	} {
		b = append(b, "# TYPE "+m.name+" counter\n# HELP "+m.name+" "+m.help+"\n"+m.name+"_total "...)
		b = append(strconv.AppendInt(b, m.value, 10), '\n')
	}
	return append(b, "# EOF\n"...)
}
