package inventory

import (
	"maps"
	"os/exec"
	"testing"
	"time"
)

func TestParseDuty(t *testing.T) {
	t.Parallel()
	got, err := parseDuty("0, GPU-aa, 37\n1, GPU-bb, [N/A]\n2, GPU-cc, 100\n3, GPU-dd, 101\n")
	want := map[string]float64{"0": .37, "GPU-aa": .37, "2": 1, "GPU-cc": 1}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// As a driver of 2026 tells of an H200 that has nothing to do.
	got, err = parseDuty("0, GPU-0ab05d15-d768-ee28-b1f9-b395274684e9, 0\n")
	if want := map[string]float64{"0": 0, "GPU-0ab05d15-d768-ee28-b1f9-b395274684e9": 0}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"No devices were found\n", "0, GPU-aa\n", "0, \"GPU, 1\n"} {
		if got, err := parseDuty(bad); err == nil {
			t.Errorf("%q gives %v", bad, got)
		}
	}
}

func FuzzParseDuty(f *testing.F) {
	f.Add("0, GPU-aa, 37\n1, GPU-bb, [N/A]\n")
	f.Fuzz(func(t *testing.T, text string) {
		busy, err := parseDuty(text)
		for id, b := range busy {
			if err != nil || !(b >= 0 && b <= 1) {
				t.Fatalf("%q: %v, %v", id, b, err)
			}
		}
	})
}

// TestDuty: the driver of this machine, where there is one, tells of each of its GPUs;
// it is asked once for many who want to know.
func TestDuty(t *testing.T) {
	t.Parallel()
	var d Duty
	now := time.Now()
	busy, read, err := d.Busy(t.Context(), now)
	again, last, same := d.Busy(t.Context(), now.Add(dutyEvery-1))
	if last != read || (err == nil) != (same == nil) || len(again) != len(busy) {
		t.Errorf("%v at %v, then %v at %v", busy, read, again, last)
	}
	if _, lacks := exec.LookPath("nvidia-smi"); lacks != nil {
		if err == nil {
			t.Error("without nvidia-smi there is no error")
		}
		return
	}
	gpus, looked := look(t.Context())
	if err != nil || looked != nil {
		t.Skipf("the driver does not answer: %v, %v", err, looked)
	}
	for _, g := range gpus {
		if _, ok := busy[g.ID]; !ok {
			t.Errorf("nothing of %s in %v", g.ID, busy)
		}
	}
	t.Logf("%d GPUs: %v", len(gpus), busy)
}
