package autoscale

import (
	"maps"
	"math"
	"strconv"
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
		{used{"a": 4 * time.Second, "b": 11 * time.Second}, .833}, // both at work
		{used{"a": 4 * time.Second, "b": 10 * time.Second}, .667}, // less than before is nothing; the first sample is forgotten
		{used{"b": 10 * time.Second}, .667},                       // 0, 2, 0
		{used{}, -1},
		{used{"b": 10 * time.Second}, -1},
	} {
		u.Sample(at(float64(i)), s.used)
		if got := u.Mean(); math.Abs(got-s.want) > .001 {
			t.Errorf("step %d: %v, want %v", i, got, s.want)
		}
	}
}

// TestNoOvershoot: a load that keeps 1.2 replicas busy gets the two that it needs at
// 60 %, though the first of them has been too few for a minute.
func TestNoOvershoot(t *testing.T) {
	t.Parallel()
	const demand, boot = 1.2, 3
	s := Spec{Min: 1, Max: 20, Concurrency: 1000, CPU: .6, DownDelay: 30 * time.Second}
	u := Utilization{Cores: 1, Window: 60}
	used := map[string]time.Duration{"0": 0}
	var starts []int // seconds at which replicas were asked for
	h := History{Want: 1, GPU: -1, Load: flat(60, 3)}
	for second := range 600 {
		for len(starts) > 0 && second-starts[0] >= boot {
			used[strconv.Itoa(len(used))], starts = 0, starts[1:]
		}
		for id := range used {
			used[id] += time.Duration(min(1, demand/float64(len(used))) * float64(time.Second))
		}
		u.Sample(at(float64(second)), maps.Clone(used))
		h.Now, h.Ready, h.CPU = at(float64(second)), len(used), u.Mean()
		d := Decide(s, h)
		if d.Want > 2 || d.Want < h.Want {
			t.Fatalf("second %d: %d replicas: %s", second, d.Want, d.Reason)
		}
		for range d.Want - h.Want {
			starts = append(starts, second)
		}
		h.Want, h.State = d.Want, d.State
	}
	if h.Want != 2 {
		t.Errorf("%d replicas", h.Want)
	}
}

// TestDuty: a replica counts with the mean of its GPUs, as long as the window is, and
// each reading once.
func TestDuty(t *testing.T) {
	t.Parallel()
	d := Duty{Window: 10 * time.Second}
	two := [][]string{{"a", "b"}, {"c"}}
	for i, s := range []struct {
		second   float64
		replicas [][]string
		busy     map[string]float64
		want     float64
	}{
		{0, nil, map[string]float64{"a": 1}, -1},
		{0, two, map[string]float64{"a": 1, "b": .5, "c": .25, "other": 1}, 1},
		{0, two, map[string]float64{"a": 0, "b": 0, "c": 0}, 1}, // the same reading
		{5, two, map[string]float64{"a": 0, "b": 0, "c": 0}, .5},
		{9, two, map[string]float64{"a": 1, "c": 1}, 1}, // nothing is known of b
		{10, two, map[string]float64{"a": 1, "b": 1, "c": 1}, 4. / 3},
		{11, two, map[string]float64{"other": 1}, -1},
		{12, two[1:], map[string]float64{"c": .5}, .5},
		{13, two, nil, -1},
	} {
		d.Sample(at(s.second), s.replicas, s.busy)
		if got := d.Mean(); math.Abs(got-s.want) > 1e-9 {
			t.Errorf("sample %d: %v, want %v", i, got, s.want)
		}
	}
}
