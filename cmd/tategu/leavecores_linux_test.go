package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLeaveCores is alone in its process for as long as it lasts: it is not parallel.
func TestLeaveCores(t *testing.T) { //nolint:paralleltest // it moves all threads
	var out strings.Builder
	c := newCores(func(text string) { out.WriteString(text + "\n") })
	all := c.all.Count()
	if all < 2 {
		t.Skip("one core cannot be left by a program that runs")
	}
	defer c.leave(0)
	for _, step := range []struct{ leave, want int }{{1, all - 1}, {1, all - 1}, {all, all - 1}, {0, all}} {
		c.leave(step.leave)
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil {
				t.Fatal(err)
			}
			var set unix.CPUSet
			if err := unix.SchedGetaffinity(id, &set); err == nil && set.Count() != step.want { // else it has ended
				t.Errorf("leave(%d): thread %d has %d of %d cores", step.leave, id, set.Count(), all)
			}
		}
	}
	if text := out.String(); strings.Count(text, "\n") != 2 || !strings.Contains(text, "1 of "+strconv.Itoa(all)+" cores") {
		t.Errorf("it says %q", text)
	}
}
