package runtimetest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// oneGPU makes a scheduler of a machine with one GPU and two cores.
func oneGPU() *scheduler.Scheduler {
	inv := runtime.Inventory{Cores: 2, MemoryBytes: 4 << 30, GPUs: []runtime.GPU{{ID: "GPU-of-the-test", Name: "test"}}}
	return scheduler.New(inv, time.Now, scheduler.Options{})
}

func newQueueBench(t *testing.T, open Open) *bench {
	t.Helper()
	return newBench(t, func(t *testing.T, o Options) Adapter {
		t.Helper()
		o.Schedule = oneGPU() // a restarted server knows nothing of the last one's
		return open(t, o)
	}, nil)
}

// held is a program that has a GPU, says which it sees and runs until end is called.
func (b *bench) held(id string) runtime.Workload {
	w := b.sh(id, fmt.Sprintf(`echo "sees [$CUDA_VISIBLE_DEVICES]"; until [ -e %q ]; do sleep 0.02; done`, filepath.Join(b.options.Shared, id)))
	w.Owner = id
	w.Env = map[string]string{"CUDA_VISIBLE_DEVICES": "all of them"}
	w.Resources = runtime.Resources{GPUs: 1}
	return w
}

// finish lets a program of held end.
func (b *bench) finish(in runtime.Instance) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.options.Shared, in.ID()), nil, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if exit := b.wait(in); !exit.OK() {
		b.t.Fatalf("%s: %+v", in.ID(), exit)
	}
}

func (b *bench) wantQueued(in runtime.Instance, position int, waits string) {
	b.t.Helper()
	st := in.Status()
	if st.Phase != runtime.Queued || st.Queue == nil || st.Queue.Position != position || !strings.Contains(st.Queue.Waits, waits) || st.Queue.Since.IsZero() {
		b.t.Fatalf("%s: status %+v, queue %+v; want number %d that waits for %q", in.ID(), st, st.Queue, position, waits)
	}
}

// testQueue: one at a time has the GPU while others pass.
func testQueue(t *testing.T, open Open) {
	t.Helper()
	b := newQueueBench(t, open)
	first := b.start(b.held("first"))
	b.awaitLog("first", "sees [GPU-of-the-test]\n")
	second, third := b.start(b.held("second")), b.start(b.held("third"))
	b.wantQueued(second, 1, "1 GPU (1 of 1 in use by first)")
	b.wantQueued(third, 2, "1 GPU (1 of 1 in use by first)")
	if exit := b.run(b.sh("passes", `echo "sees [$CUDA_VISIBLE_DEVICES] [$NVIDIA_VISIBLE_DEVICES]"`)); !exit.OK() {
		t.Fatalf("%+v", exit)
	}
	b.awaitLog("passes", "sees [] [void]\n")
	if st := first.Status(); st.Phase != runtime.Running || len(st.GPUs) != 1 || st.GPUs[0].ID != "GPU-of-the-test" || st.Queue != nil {
		t.Errorf("status of who has the GPU: %+v", st)
	}
	b.finish(first)
	b.awaitLog("second", "for 1 GPU\nsees [GPU-of-the-test]\n")
	if text := b.logs.Text("second"); !strings.HasPrefix(text, "tategu: waited ") {
		t.Errorf("the output of who waited is %q", text)
	}
	b.wantQueued(third, 1, "1 GPU (1 of 1 in use by second)")
	b.finish(second)
	b.finish(third)
}

// testQueueStop: who is stopped while it waits never runs and leaves its place.
func testQueueStop(t *testing.T, open Open) {
	t.Helper()
	b := newQueueBench(t, open)
	first, second, third := b.start(b.held("first")), b.start(b.held("second")), b.start(b.held("third"))
	b.wantQueued(third, 2, "1 GPU")
	if err := second.Stop(b.ctx(), time.Minute); err != nil {
		t.Fatal(err)
	}
	if exit := b.wait(second); exit.OK() || exit.Message != "stopped" {
		t.Errorf("%+v", exit)
	}
	b.wantQueued(third, 1, "1 GPU (1 of 1 in use by first)")
	if err := first.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	b.finish(third)
	if text := b.logs.Text("second"); strings.Contains(text, "sees") {
		t.Errorf("what was stopped while it waited ran: %q", text)
	}
}

// testQueueRestart: a restarted server knows who has what, and in which order the
// others wait.
func testQueueRestart(t *testing.T, open Open) {
	t.Helper()
	b := newQueueBench(t, open)
	ids := []string{"zebra", "yak", "ant"} // their names are no order
	for _, id := range ids {
		b.start(b.held(id))
	}
	b.awaitLog("zebra", "sees [GPU-of-the-test]\n")
	find := func(id string) runtime.Instance {
		in, err := b.Find(b.ctx(), id)
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	for range 2 {
		b.restart()
		b.wantQueued(find("yak"), 1, "1 GPU (1 of 1 in use by zebra)")
		b.wantQueued(find("ant"), 2, "1 GPU (1 of 1 in use by zebra)")
	}
	b.finish(find("zebra"))
	b.awaitLog("yak", "sees [GPU-of-the-test]\n")
	b.wantQueued(find("ant"), 1, "1 GPU (1 of 1 in use by yak)")
	b.restart()
	if st := find("yak").Status(); len(st.GPUs) != 1 || st.GPUs[0].ID != "GPU-of-the-test" {
		t.Errorf("who runs has lost its GPU: %+v", st)
	}
	b.finish(find("yak"))
	b.finish(find("ant"))
}
