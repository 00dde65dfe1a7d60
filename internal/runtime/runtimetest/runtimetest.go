// Package runtimetest is the contract of the runtime port, as tests that every
// adapter passes. The programs they start need a POSIX shell and its usual tools.
package runtimetest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/scheduler"
)

// Options are what a test gives the adapter it opens.
type Options struct {
	Dir         string // the same for a restart
	Shared      string // a directory that programs see under the same path
	Files       runtime.Files
	Credentials runtime.Credentials
	Logs        runtime.LogSink
	Schedule    *scheduler.Scheduler // to be used; nil = the adapter's own
}

// Adapter is an opened runtime; Close must leave its workloads alone.
type Adapter interface {
	runtime.Runtime
	Close() error
}

// Open makes an adapter.
type Open func(t *testing.T, o Options) Adapter

// limit is how long anything may take before a test gives up.
const limit = time.Minute

// Run runs the contract.
func Run(t *testing.T, open Open) {
	t.Helper()
	tests := map[string]func(*testing.T, Open){
		"Ends": testEnds, "Logs": testLogs, "KillsTree": testKillsTree, "EndsStrays": testEndsStrays, "StopGrace": testStopGrace,
		"Idempotent": testIdempotent, "Restart": testRestart, "RestartEnded": testRestartEnded, "Files": testFiles, "Literals": testLiterals, "LiteralWords": testLiteralWords,
		"UploadFails": testUploadFails, "Environment": testEnvironment, "Port": testPort, "Refuses": testRefuses, "Release": testRelease,
		"Credentials": testCredentials, "Script": testScript,
		"Queue": testQueue, "QueueStop": testQueueStop, "QueueRestart": testQueueRestart,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, open)
		})
	}
}

// bench is one opened adapter with its fakes.
type bench struct {
	Adapter
	t           *testing.T
	open        Open
	options     Options
	files       *Files
	logs        *Logs
	credentials *Credentials
}

func newBench(t *testing.T, open Open, objects map[string]string) *bench {
	t.Helper()
	if objects == nil {
		objects = map[string]string{}
	}
	b := &bench{t: t, open: open, files: NewFiles(objects), logs: NewLogs(), credentials: &Credentials{}}
	b.options = Options{Dir: t.TempDir(), Shared: t.TempDir(), Files: b.files, Logs: b.logs, Credentials: b.credentials}
	b.Adapter = open(t, b.options)
	t.Cleanup(func() { b.end() })
	return b
}

// ctx ends a step that hangs.
func (b *bench) ctx() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	b.t.Cleanup(cancel)
	return ctx
}

// end stops what a failed test left and closes the adapter.
func (b *bench) end() {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	list, err := b.List(ctx)
	if err != nil {
		b.t.Error(err)
	}
	for _, in := range list {
		if err := in.Stop(ctx, 0); err != nil {
			b.t.Error(err)
		}
	}
	if err := b.Close(); err != nil {
		b.t.Error(err)
	}
}

// restart closes the adapter and opens another on the same directory.
func (b *bench) restart() {
	b.t.Helper()
	if err := b.Close(); err != nil {
		b.t.Fatal(err)
	}
	b.Adapter = b.open(b.t, b.options)
}

func (b *bench) start(w runtime.Workload) runtime.Instance {
	b.t.Helper()
	in, err := b.Start(b.ctx(), w)
	if err != nil {
		b.t.Fatal(err)
	}
	return in
}

func (b *bench) sh(id, script string) runtime.Workload {
	return runtime.Workload{ID: id, Owner: "o", Project: "p", ServiceAccount: "s", Command: []string{"sh", "-c", script}}
}

func (b *bench) wait(in runtime.Instance) runtime.Exit {
	b.t.Helper()
	exit, err := in.Wait(b.ctx())
	if err != nil {
		b.t.Fatalf("wait for %s: %v (%+v)", in.ID(), err, in.Status())
	}
	if st := in.Status(); st.Phase != runtime.Ended || st.Exit == nil {
		b.t.Fatalf("after Wait the status of %s is %+v", in.ID(), st)
	}
	return exit
}

func (b *bench) run(w runtime.Workload) runtime.Exit {
	b.t.Helper()
	return b.wait(b.start(w))
}

func (b *bench) awaitLog(stream, text string) {
	b.t.Helper()
	if err := b.logs.Await(b.ctx(), stream, text); err != nil {
		b.t.Fatal(err)
	}
}

func testEnds(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	tests := map[string]struct {
		w      runtime.Workload
		code   int
		signal string
		cause  resource.Cause
		say    string
	}{
		"ok":      {w: b.sh("ok", "exit 0")},
		"code":    {w: b.sh("code", "echo reason; exit 7"), code: 7, cause: resource.CauseUserCode, say: "failed"},
		"signal":  {w: b.sh("signal", "kill -SEGV $$"), code: 139, signal: "SIGSEGV", cause: resource.CauseUserCode, say: "SIGSEGV"},
		"missing": {w: runtime.Workload{ID: "missing", Command: []string{"no-such-program-of-ours"}}, code: -1, cause: resource.CauseInput, say: "no-such-program-of-ours"},
		"path":    {w: runtime.Workload{ID: "path", Command: []string{"/no/such/program"}}, code: -1, cause: resource.CauseInput, say: "/no/such/program"},
	}
	for name, tc := range tests {
		exit := b.run(tc.w)
		if exit.Code != tc.code || exit.Signal != tc.signal || exit.Cause != tc.cause || !strings.Contains(exit.Message, tc.say) {
			t.Errorf("%s: exit %+v, want code %d, signal %q, cause %q, message with %q", name, exit, tc.code, tc.signal, tc.cause, tc.say)
		}
		if exit.OK() != (tc.code == 0) || exit.Ended.IsZero() {
			t.Errorf("%s: exit %+v", name, exit)
		}
		if tc.code == 7 && (len(exit.Tail) != 1 || exit.Tail[0] != "reason") {
			t.Errorf("%s: tail %q", name, exit.Tail)
		}
	}
}

func testLogs(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	in := b.start(b.sh("logs", "echo first; echo second >&2; read x <fifo 2>/dev/null || while :; do [ -e \"$TMPDIR/go\" ] && break; sleep 0.05; done; printf last"))
	// In which order an adapter reads stdout and stderr is its own affair.
	b.awaitLog("logs", "first\n")
	b.awaitLog("logs", "second\n")
	if exit := in.Status().Exit; exit != nil {
		t.Fatalf("ended before its time: %+v", exit)
	}
	// The program waits for a file that does not come: Stop ends it, and what it
	// wrote stays.
	if err := in.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	exit := b.run(b.sh("more", "i=0; while [ $i -lt 5000 ]; do echo line $i of the output; i=$((i+1)); done; printf end"))
	if !exit.OK() || len(exit.Tail) != 20 || exit.Tail[19] != "end" {
		t.Fatalf("exit %+v", exit)
	}
	text := b.logs.Text("more")
	if strings.Count(text, "\n") != 5000 || !strings.HasSuffix(text, "end") {
		t.Fatalf("the log has %d bytes and ends with %q", len(text), text[max(0, len(text)-20):])
	}
	more, err := b.Find(b.ctx(), "more")
	if err != nil {
		t.Fatal(err)
	}
	r, err := more.Log(b.ctx(), int64(len(text)-3))
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "end" {
		t.Fatalf("Log = %q, %v", got, err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func testIdempotent(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	w := b.sh("once", "echo started; sleep 1000")
	first := b.start(w)
	for range 3 {
		if again := b.start(w); again.ID() != first.ID() {
			t.Fatalf("another instance: %s", again.ID())
		}
	}
	b.awaitLog("once", "started")
	if err := first.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	again := b.start(w)
	if exit := b.wait(again); exit.Message != "stopped" {
		t.Fatalf("a second Start of an ended workload: %+v", exit)
	}
	if text := b.logs.Text("once"); strings.Count(text, "started") != 1 {
		t.Fatalf("it ran more than once: %q", text)
	}
	list, err := b.List(b.ctx())
	if err != nil || len(list) != 1 {
		t.Fatalf("List = %d, %v", len(list), err)
	}
	if _, err := b.Find(b.ctx(), "other"); !resource.IsNotFound(err) {
		t.Fatalf("Find of an unknown id: %v", err)
	}
}

func testRefuses(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	tests := map[string]runtime.Workload{
		"id":      {ID: "../x", Command: []string{"true"}},
		"nothing": {ID: "nothing"},
		"image":   {ID: "image", Image: "example.com/unknown:1", Command: []string{"true"}},
		"cores":   {ID: "cores", Command: []string{"true"}, Resources: runtime.Resources{Cores: 1e6}},
		"memory":  {ID: "memory", Command: []string{"true"}, Resources: runtime.Resources{MemoryBytes: 1 << 60}},
		"GPU":     {ID: "gpus", Command: []string{"true"}, Resources: runtime.Resources{GPUs: 1000}},
	}
	for name, w := range tests {
		if _, err := b.Start(b.ctx(), w); err == nil {
			t.Errorf("%s: accepted", name)
		} else if name != "id" && name != "nothing" && !strings.Contains(fmt.Sprint(err), strings.TrimSuffix(name, "s")) {
			t.Errorf("%s: the error does not name it: %v", name, err)
		}
	}
	if list, err := b.List(b.ctx()); err != nil || len(list) != 0 {
		t.Fatalf("refused workloads are listed: %d, %v", len(list), err)
	}
}

func testRelease(t *testing.T, open Open) {
	t.Helper()
	b := newBench(t, open, nil)
	in := b.start(b.sh("r", "echo up; sleep 1000"))
	b.awaitLog("r", "up")
	if err := in.Release(b.ctx()); err == nil {
		t.Fatal("released while it runs")
	}
	if err := in.Stop(b.ctx(), 0); err != nil {
		t.Fatal(err)
	}
	if err := in.Release(b.ctx()); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find(b.ctx(), "r"); !resource.IsNotFound(err) {
		t.Fatalf("still found: %v", err)
	}
	if exit := b.run(b.sh("r", "echo again")); !exit.OK() {
		t.Fatalf("the id is not free again: %+v", exit)
	}
}
