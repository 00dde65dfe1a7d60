package worker_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"tategu/internal/torchserve/worker"
)

func sample() worker.Answer {
	return worker.Answer{Code: 200, Message: "Prediction success", Items: []worker.Item{
		{ID: "1", ContentType: "text/plain", Status: 200, Reason: "OK", Headers: []worker.Pair{{Name: worker.StreamNext, Value: "true"}}, Body: []byte("hello")},
		{ID: "2", Status: 418, Body: bytes.Repeat([]byte("x"), 3<<20)},
	}}
}

func TestAnswersComeBack(t *testing.T) {
	t.Parallel()
	want := sample()
	data := worker.AppendAnswer(worker.AppendAnswer(nil, want), worker.Answer{Code: 507, Message: "Out of resources"})
	d := worker.NewDecoder(iotest{bytes.NewReader(data)}, 4<<20)
	got, err := d.Read()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v", err)
	}
	if got, err = d.Read(); err != nil || got.Code != 507 || got.Message != "Out of resources" || len(got.Items) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err = d.Read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// iotest reads a little at a time.
type iotest struct{ r io.Reader }

func (i iotest) Read(p []byte) (int, error) { return i.r.Read(p[:min(len(p), 1000)]) }

// TestTooLarge: a body beyond the limit is dropped, and what follows is read.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	data := worker.AppendAnswer(worker.AppendAnswer(nil, sample()), worker.Answer{Code: 200})
	d := worker.NewDecoder(bytes.NewReader(data), 100)
	got, err := d.Read()
	if err != nil || string(got.Items[0].Body) != "hello" || got.Items[1].TooLarge != 3<<20 || got.Items[1].Body != nil {
		t.Errorf("%v", err)
	}
	if got, err = d.Read(); err != nil || got.Code != 200 {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	good := worker.AppendAnswer(nil, sample())
	number := func(n int32) []byte { return binary.BigEndian.AppendUint32(nil, uint32(n)) }
	for name, data := range map[string][]byte{
		"text":            []byte("Traceback (most recent call last):\n"),
		"a code":          number(42),
		"a message":       append(number(200), number(-5)...),
		"a long message":  append(number(200), number(1<<30)...),
		"an id":           append(append(number(200), number(0)...), number(-2)...),
		"headers without": bytes.Replace(good, []byte("OK\x00\x00\x00\x01"), []byte("OK\x7f\x00\x00\x01"), 1),
	} {
		if _, err := worker.NewDecoder(bytes.NewReader(data), 1<<20).Read(); !errors.Is(err, worker.ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := 1; i < 60; i++ {
		if _, err := worker.NewDecoder(bytes.NewReader(good[:i]), 1<<20).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

// TestClaimedMemory: a length alone takes no memory; with it, this would fail.
func TestClaimedMemory(t *testing.T) {
	t.Parallel()
	data := worker.AppendAnswer(nil, worker.Answer{Code: 200, Items: []worker.Item{{ID: "1", Status: 200}}})
	binary.BigEndian.PutUint32(data[len(data)-8:], 1<<31-1)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := worker.NewDecoder(bytes.NewReader(data), 1<<40).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
	if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<30 {
		t.Errorf("it took %d bytes", after.TotalAlloc-before.TotalAlloc)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	got := worker.AppendLoad(nil, worker.Load{Name: "m", Dir: "/d", Batch: 2, Handler: "h", GPU: -1, LimitPixels: true})
	if want := "L\x00\x00\x00\x01m\x00\x00\x00\x02/d\x00\x00\x00\x02\x00\x00\x00\x01h\xff\xff\xff\xff\x00\x00\x00\x00\x01"; string(got) != want {
		t.Errorf("load: %q", got)
	}
	got = worker.AppendBatch(nil, []worker.Request{
		{ID: "a", Headers: []worker.Pair{{Name: "h", Value: "v"}}, Parts: []worker.Part{{Name: "body", ContentType: "t", Value: []byte("x")}}},
		{ID: "b", Known: true, Parts: []worker.Part{{Name: "body"}}},
	})
	end := "\xff\xff\xff\xff"
	if want := "I\x00\x00\x00\x01a\x00\x00\x00\x01h\x00\x00\x00\x01v" + end + "\x00\x00\x00\x04body\x00\x00\x00\x01t\x00\x00\x00\x01x" + end + "\x00\x00\x00\x01b" + end + end + end; string(got) != want {
		t.Errorf("batch: %q", got)
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(worker.AppendAnswer(nil, sample()))
	f.Add(worker.AppendAnswer(nil, worker.Answer{Code: 503, Message: "Prediction failed", Items: []worker.Item{{ID: "x", Status: 503, Body: []byte("error")}}}))
	f.Add([]byte("not at all"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d := worker.NewDecoder(bytes.NewReader(data), 1<<16)
		for {
			a, err := d.Read()
			if err != nil {
				return
			}
			whole := true
			for _, it := range a.Items {
				whole = whole && it.TooLarge == 0
			}
			if !whole {
				continue
			}
			again, err := worker.NewDecoder(bytes.NewReader(worker.AppendAnswer(nil, a)), 1<<16).Read()
			if err != nil || again.Code != a.Code || len(again.Items) != len(a.Items) {
				t.Fatalf("%v: %+v is read as %+v", err, a, again)
			}
		}
	})
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	m, ok := worker.ParseMetric("[METRICS]PredictionTime.Milliseconds:0.35|#ModelName:m,Level:Model|#type:GAUGE|#hostname:host,1700000000,id1,id2")
	if !ok || m.Name != "PredictionTime" || m.Unit != "Milliseconds" || m.Value != 0.35 || m.Kind != "GAUGE" || m.Host != "host" || m.At.Unix() != 1700000000 || m.RequestIDs != "id1,id2" ||
		!reflect.DeepEqual(m.Dimensions, []worker.Pair{{Name: "ModelName", Value: "m"}, {Name: "Level", Value: "Model"}}) {
		t.Errorf("%v %+v", ok, m)
	}
	for line, want := range map[string]bool{
		"[METRICS]A.Count:1|#Level:Host|#hostname:h,1700000000": true, "[METRICS]A.Count:1|#|#hostname:h,1": true, "[METRICS]A.b.Count:1|#type:COUNTER|#hostname:h,1": true,
		"[METRICS]": false, "[METRICS]A:1": false, "[METRICS]A.Count:x|#hostname:h,1": false, "[METRICS]A.Count:NaN|#L:v|#hostname:h,1": false, "[METRICS]A.Count:1|#L:v|#hostname:h": false,
		"[METRICS]A.Count:1|#L:v|#type:OTHER|#hostname:h,1": false, "nothing": false, "[METRICS].Count:1|#L:v|#hostname:h,1": false,
	} {
		if _, ok := worker.ParseMetric(line); ok != want {
			t.Errorf("%s: %v", line, ok)
		}
	}
}

func FuzzMetric(f *testing.F) {
	f.Add("[METRICS]PredictionTime.Milliseconds:0.35|#ModelName:m,Level:Model|#type:GAUGE|#hostname:host,1700000000,id1,id2")
	f.Add("[METRICS]A.Count:1|#type:COUNTER|#hostname:h,1")
	f.Fuzz(func(t *testing.T, line string) {
		if m, ok := worker.ParseMetric(line); ok && (m.Name == "" || !strings.Contains(line, m.Name)) {
			t.Errorf("%q: %+v", line, m)
		}
	})
}
