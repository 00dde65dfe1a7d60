package runner

import (
	"strings"
	"testing"
)

// TestBatchSizes: a run is counted in the bucket of its rows, and in those above.
func TestBatchSizes(t *testing.T) {
	t.Parallel()
	var s stats
	for _, rows := range [][]int{{1}, {1}, {1, 1, 1}, {100, 28}, {300}} {
		var batch []*job
		for _, n := range rows {
			batch = append(batch, &job{rows: n})
		}
		s.batch(batch)
	}
	text := string(s.appendText(nil))
	for _, want := range []string{
		`_bucket{le="1.0"} 2`, `_bucket{le="2.0"} 2`, `_bucket{le="4.0"} 3`, `_bucket{le="64.0"} 3`, `_bucket{le="128.0"} 4`, `_bucket{le="256.0"} 4`, `_bucket{le="+Inf"} 5`,
		"_count 5", "_sum 433",
	} {
		if !strings.Contains(text, "tategu_runner_batch_rows"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if !strings.HasSuffix(text, "\n# EOF\n") {
		t.Error("it does not end")
	}
}
