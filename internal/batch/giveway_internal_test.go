package batch

import (
	"hash/crc32"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

// TestCoresLeft: one is left while an endpoint is asked, where there is another.
func TestCoresLeft(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	asked := time.Time{}
	var log strings.Builder
	cfg := Config{Now: func() time.Time { return now }, Asked: func() time.Time { return asked }, Log: slog.New(slog.NewTextHandler(&log, nil))}
	many, one, deaf := newWay(cfg, 64), newWay(cfg, 1), newWay(Config{Now: cfg.Now, Log: cfg.Log}, 64)
	for _, c := range []struct {
		ago  time.Duration
		want int
	}{{time.Hour, 0}, {0, 1}, {asking - 1, 1}, {asking, 0}, {0, 1}} {
		asked = now.Add(-c.ago)
		if n := many.left(t.Context()); n != c.want || testutil.ToFloat64(many.gauge) != float64(c.want) {
			t.Errorf("%v after a request %d are left", c.ago, n)
		}
		if n := one.left(t.Context()) + deaf.left(t.Context()); n != 0 {
			t.Errorf("%v after a request %d of one core are left", c.ago, n)
		}
	}
	if text := log.String(); strings.Count(text, "leaves a core") != 2 || strings.Count(text, "takes all cores") != 1 {
		t.Errorf("log:\n%s", text)
	}
}

// TestChecksum: those of parts give that of the whole.
func TestChecksum(t *testing.T) {
	t.Parallel()
	data := []byte(strings.Repeat("any bytes\x00\xff", 5000))
	table := crc32.MakeTable(crc32.Castagnoli)
	for _, cuts := range [][]int{{}, {0}, {1}, {7, 7, 4096}, {1, 2, 3, 50_000}} {
		var sum checksum
		from := 0
		for _, to := range append(cuts, len(data)) {
			sum.add(crc32.Checksum(data[from:to], table), int64(to-from))
			from = to
		}
		if want := crc32.Checksum(data, table); uint32(sum) != want {
			t.Errorf("cut at %v: %08x, want %08x", cuts, uint32(sum), want)
		}
	}
}
