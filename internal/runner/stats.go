package runner

import (
	"strconv"
	"sync/atomic"
)

// stats counts what the runner did, for GET /metrics.
type stats struct {
	requests, failed, runs, rows, merged atomic.Int64

	sizes [sizeBounds + 1]atomic.Int64 // runs by the rows of their batch
}

// sizeBounds is how many bounds the histogram of batches has: 1, 2, 4 to 256 rows.
const sizeBounds = 9

func (s *stats) batch(batch []*job) {
	rows := 0
	for _, j := range batch {
		rows += j.rows
	}
	s.runs.Add(1)
	s.rows.Add(int64(rows))
	at := 0
	for at < sizeBounds && rows > 1<<at {
		at++
	}
	s.sizes[at].Add(1)
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
	return append(s.appendSizes(b), "# EOF\n"...)
}

// appendSizes writes how large the batches were. Its counts are read one by one: what
// is under way may be in some of them and not in others, so the last is their sum.
func (s *stats) appendSizes(b []byte) []byte {
	const name = "tategu_runner_batch_rows"
	b = append(b, "# TYPE "+name+" histogram\n# HELP "+name+" Rows that the model was run with at a time.\n"...)
	runs := int64(0)
	for i := range s.sizes {
		runs += s.sizes[i].Load()
		bound := "+Inf"
		if i < sizeBounds {
			bound = strconv.Itoa(1<<i) + ".0"
		}
		b = append(b, name+"_bucket{le=\""+bound+"\"} "...)
		b = append(strconv.AppendInt(b, runs, 10), '\n')
	}
	b = append(strconv.AppendInt(append(b, name+"_count "...), runs, 10), '\n')
	return append(strconv.AppendInt(append(b, name+"_sum "...), s.rows.Load(), 10), '\n')
}
