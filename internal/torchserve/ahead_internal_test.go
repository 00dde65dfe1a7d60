package torchserve

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"tategu/internal/torchserve/worker"
)

// fakeWorker is the other end of a worker's connection.
type fakeWorker struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (f *fakeWorker) field(n int32) string {
	b := make([]byte, max(n, 0))
	if _, err := io.ReadFull(f.r, b); err != nil {
		f.t.Errorf("a worker reads: %v", err)
	}
	return string(b)
}

func (f *fakeWorker) int() (n int32) {
	if err := binary.Read(f.r, binary.BigEndian, &n); err != nil {
		f.t.Errorf("a worker reads: %v", err)
		return -1
	}
	return n
}

// next reads a frame of one request without headers, of one part.
func (f *fakeWorker) next() string {
	if cmd := f.field(1); cmd != "I" {
		f.t.Errorf("a worker is told %q", cmd)
	}
	id := f.field(f.int())
	for _, want := range []int32{-1, 4, 0, 1, -1, -1} {
		n := f.int()
		if n != want {
			f.t.Errorf("a worker reads %d, want %d", n, want)
		}
		f.field(n)
	}
	return id
}

func frameFor(id string) []byte {
	return worker.AppendAnswer(nil, worker.Answer{Code: 200, Message: "ok", Items: []worker.Item{{ID: id, Status: 200, Body: []byte(id)}}})
}

func (f *fakeWorker) send(b []byte) {
	if _, err := f.c.Write(b); err != nil {
		f.t.Errorf("a worker writes: %v", err)
	}
}

func (f *fakeWorker) close() {
	if err := f.c.Close(); err != nil {
		f.t.Error(err)
	}
}

// TestGivenBack: requests that were written ahead wait again when the worker ends and
// cannot have begun with them, and only then.
func TestGivenBack(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		end   func(f *fakeWorker) // with the second request read, and the third
		fails []string
		back  []string
	}{
		{"dies", func(f *fakeWorker) { f.close() }, []string{"2"}, []string{"3", "4", "5"}},
		{"answers and dies", func(f *fakeWorker) { f.send(frameFor("2")); f.close() }, []string{"3"}, []string{"4", "5"}},
		{"dies in the middle of an answer", func(f *fakeWorker) { f.send(frameFor("2")[:9]); f.close() }, []string{"2", "3", "4", "5"}, nil},
		{"says nonsense", func(f *fakeWorker) { f.send([]byte("this is no answer, and no start of one")) }, []string{"2", "3", "4", "5"}, nil},
		{"answers what it was not asked", func(f *fakeWorker) { f.send(frameFor("4")) }, []string{"2", "3", "4", "5"}, nil},
		{"hangs", func(f *fakeWorker) {
			if _, err := io.Copy(io.Discard, f.r); err != nil {
				f.t.Error(err)
			}
			if _, err := f.c.Write(frameFor("2")); err == nil { // so it cannot begin with the third
				f.t.Error("a worker that was given up is heard")
			}
		}, []string{"2"}, []string{"3", "4", "5"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w, jobs := single(t)
			conn, fake := connect(t, 1<<16)
			done := make(chan error, 1)
			go func() { done <- w.serveSingles(t.Context(), conn, nil, anyPace()) }()
			if id := fake.next(); id != "1" {
				t.Errorf("the first is %s", id)
			}
			fake.send(frameFor("1"))
			for _, want := range []string{"2", "3"} { // the third although the second has no answer
				if id := fake.next(); id != want {
					t.Errorf("%s is read, want %s", id, want)
				}
			}
			ended := make(chan struct{})
			go func() { defer close(ended); tt.end(fake) }()
			death, ok := errors.AsType[*deathError](<-done)
			if !ok {
				t.Fatal("it has not died with requests")
			}
			_ = conn.Close() // as who serves it does; it may be closed
			<-ended
			if got := ids(death.jobs); !slices.Equal(got, tt.fails) {
				t.Errorf("%v fail, want %v", got, tt.fails)
			}
			if got := ids(w.v.queue.jobs); !slices.Equal(got, tt.back) {
				t.Errorf("%v wait, want %v", got, tt.back)
			}
			if !jobs[0].isEnded() || jobs[4].isEnded() {
				t.Error("the first has no answer, or the last one has")
			}
		})
	}
}

func ids(jobs []*job) (out []string) {
	for _, j := range jobs {
		out = append(out, j.req.ID)
	}
	return out
}

// single is a slot of a model without batches, and five requests that wait for it.
func single(t *testing.T) (*slot, []*job) {
	t.Helper()
	v := &version{srv: &Server{}, queue: newQueue(10), log: slog.New(slog.DiscardHandler), set: settings{BatchSize: 1, ResponseTimeout: 3 * time.Second}}
	w := &slot{v: v, stop: make(chan struct{})}
	v.slots = []*slot{w}
	var jobs []*job
	for _, id := range []string{"1", "2", "3", "4", "5"} {
		j := newJob(Request{ID: id, Parts: []Part{{Name: "body", Value: []byte(id)}}})
		if ok, err := v.queue.put(j, false); !ok || err != nil {
			t.Fatal(ok, err)
		}
		jobs = append(jobs, j)
	}
	return w, jobs
}

// anyPace has as much written ahead on a machine that is slow.
func anyPace() pace { return pace{budget: time.Hour} }

// connect gives both ends of a connection, of which ours takes about so many bytes that
// are not read.
func connect(t *testing.T, buffer int) (*worker.Conn, *fakeWorker) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }() // it has what it is for
	ours, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: ln.Addr().String(), Net: "unix"})
	if err == nil {
		err = ours.SetWriteBuffer(buffer)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // it may be closed
	// A frame that never comes fails the test.
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	return worker.NewConn(ours, 1<<20), &fakeWorker{t: t, c: c, r: bufio.NewReader(c)}
}

// TestPace: what a request of late took bounds what is written ahead.
func TestPace(t *testing.T) {
	t.Parallel()
	p := pace{budget: aheadTime}
	if p.depth() != 0 {
		t.Error("something is written ahead of a worker that nothing is known of")
	}
	p.note(time.Millisecond)
	if got := p.depth(); got != 4 {
		t.Errorf("%d are ahead of a worker that takes 1 ms", got)
	}
	p.note(time.Second)
	if p.note(time.Millisecond); p.depth() != 0 {
		t.Error("something is written ahead of a worker that took a second")
	}
	n := 0
	for ; p.depth() < 2; n++ {
		p.note(10 * time.Microsecond)
	}
	if n < 50 || n > 1000 {
		t.Errorf("a slow request is forgotten after %d", n)
	}
	for range 1000 {
		p.note(0)
	}
	if got := p.depth(); got != aheadJobs {
		t.Errorf("%d are ahead of the quickest worker", got)
	}
}

// TestAheadOfOthers: what a worker waits for, or what is large, is not taken ahead.
func TestAheadOfOthers(t *testing.T) {
	t.Parallel()
	w, _ := single(t)
	q := w.v.queue
	q.idle = 1
	if got := ids(q.ahead(3, 1<<20)); got != nil {
		t.Errorf("%v are taken from a worker that waits for them", got)
	}
	q.idle = 0
	if got := ids(q.ahead(3, 2*q.jobs[0].size())); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("%v are taken, want two", got)
	}
	large := newJob(body1(aheadBytes))
	q.back([]*job{large})
	if got := ids(q.ahead(3, aheadBytes)); got != nil {
		t.Errorf("%v are taken past a large one", got)
	}
	late := newJob(body1(1))
	late.expires = late.arrived.Add(-1)
	q.back([]*job{late})
	if got := ids(q.ahead(3, aheadBytes)); got != nil || !late.isEnded() {
		t.Errorf("%v are taken in the place of one that nobody waits for", got)
	}
	if q.jobs[0] != large {
		t.Error("the large one is gone")
	}
}

// TestLeftAhead: a request whose client left while it was in the socket of a worker that
// has ended takes no place in the queue.
func TestLeftAhead(t *testing.T) {
	t.Parallel()
	w, jobs := single(t)
	q := w.v.queue
	taken := q.ahead(2, aheadBytes)
	jobs[0].leave()
	q.remove(jobs[0])
	q.back(taken)
	if got := ids(q.jobs); !slices.Equal(got, []string{"2", "3", "4", "5"}) {
		t.Errorf("%v wait", got)
	}
}

// TestUnreadAhead: nothing is written behind a part of a request.
func TestUnreadAhead(t *testing.T) {
	t.Parallel()
	w, _ := single(t)
	w.v.queue = newQueue(10)
	conn, fake := connect(t, 4<<10)
	var jobs []*job
	for id, size := range map[string]int{"1": 1, "2": 1, "3": 30 << 10, "4": 3 << 10} {
		jobs = append(jobs, newJob(Request{ID: id, Parts: []Part{{Name: "body", Value: make([]byte, size)}}}))
	}
	slices.SortFunc(jobs, func(a, b *job) int { return strings.Compare(a.req.ID, b.req.ID) })
	for _, j := range jobs {
		if ok, err := w.v.queue.put(j, false); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- w.serveSingles(t.Context(), conn, nil, anyPace()) }()
	fake.next()
	fake.send(frameFor("1"))
	fake.next()
	fake.send(frameFor("2")) // and reads no more
	answered := make(chan struct{})
	go func() {
		_, _ = jobs[1].next(t.Context()) // either ends the test
		close(answered)
	}()
	var err error
	select {
	case err = <-done:
	case <-answered:
	}
	read := make(chan []byte, 1)
	go func() {
		text, _ := io.ReadAll(fake.r) // to the end of our side
		read <- text
	}()
	if err == nil {
		err = <-done
	}
	_ = conn.Close() // as who serves it does
	if text := <-read; bytes.Contains(text, []byte("I\x00\x00\x00\x014")) {
		t.Error("a request lies within another one")
	}
	if death, ok := errors.AsType[*deathError](err); !ok || !errors.Is(err, errTimeout) || !slices.Equal(ids(w.v.queue.jobs), []string{"4"}) {
		t.Errorf("%v wait: %v", ids(w.v.queue.jobs), death)
	}
}

// TestStoppedAhead: what is ahead of a worker that is stopped in the middle is for others.
func TestStoppedAhead(t *testing.T) {
	t.Parallel()
	w, _ := single(t)
	conn, fake := connect(t, 1<<16)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.serveSingles(ctx, conn, nil, anyPace()) }()
	fake.next()
	fake.send(frameFor("1"))
	fake.next()
	fake.next()
	cancel()
	if err := conn.Interrupt(); err != nil { // as life does
		t.Fatal(err)
	}
	death, ok := errors.AsType[*deathError](<-done)
	if !ok || !slices.Equal(ids(death.jobs), []string{"2"}) || !slices.Equal(ids(w.v.queue.jobs), []string{"3", "4", "5"}) {
		t.Errorf("%v fail, %v wait: %v", ids(death.jobs), ids(w.v.queue.jobs), death)
	}
}

func body1(n int) Request { return Request{Parts: []Part{{Name: "body", Value: make([]byte, n)}}} }
