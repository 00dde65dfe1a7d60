package autoscale

import (
	"math"
	"testing"
	"time"
)

func TestUtilization(t *testing.T) {
	t.Parallel()
	type used = map[string]time.Duration
	u := Utilization{Cores: 2, Window: 3}
	for i, s := range []struct {
		used used
		want float64
	}{
		{used{}, -1},
		{used{"a": time.Second}, -1},                              // nothing to compare with
		{used{"a": 2 * time.Second}, .5},                          // one of two cores
		{used{"a": 2 * time.Second, "b": 9 * time.Second}, .25},   // b is new
		{used{"a": 4 * time.Second, "b": 11 * time.Second}, .5},   // both at work
		{used{"a": 4 * time.Second, "b": 10 * time.Second}, .333}, // less than before is nothing; the first sample is forgotten
		{used{"b": 10 * time.Second}, .333},                       // 0, 1, 0
		{used{}, -1},
		{used{"b": 10 * time.Second}, -1},
	} {
		u.Sample(at(float64(i)), s.used)
		if got := u.Mean(); math.Abs(got-s.want) > .001 {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}
