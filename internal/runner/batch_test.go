package runner

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tategu/internal/tensor"
)

// working runs a batcher with one worker during a test in a bubble.
func working(t *testing.T, f *fake, most int, delay time.Duration) *batcher {
	t.Helper()
	b := newBatcher(modelOf(f), most, delay, &stats{})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b.run(ctx, 1)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return b
}

func TestWhatQueuedWhileTheWorkerWasBusyIsOneBatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, busy := newFake(), make(chan struct{})
		f.before = func() { <-busy }
		b := working(t, f, 4, 0)
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				got, err := b.do(t.Context(), row(float32(i), 1), 1)
				if err != nil || string(got[0].AppendJSON(nil)) != string(row(float32(2*i), 2)[0].AppendJSON(nil)) {
					t.Errorf("request %d: %v %v", i, got, err)
				}
			})
			synctest.Wait() // the first one is at work, the others wait in order
		}
		close(busy)
		wg.Wait()
		if got := f.seen(); !slices.Equal(got, []int{1, 4, 1}) {
			t.Errorf("batches of %v rows, want 1, then 4 at most, then the rest", got)
		}
	})
}

func TestABadRequestFailsAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, busy := newFake(), make(chan struct{})
		f.before = func() { <-busy }
		b := working(t, f, 8, 0)
		var wg sync.WaitGroup
		for i, v := range []float32{1, 2, -3, 4} {
			wg.Go(func() {
				got, err := b.do(t.Context(), row(v, v), 1)
				_, bad := errors.AsType[*InputError](err)
				if bad != (v < 0) || !bad && err != nil {
					t.Errorf("%v: %v", v, err)
				}
				if v > 0 && string(got[0].AppendJSON(nil)) != string(row(2*v, 2*v)[0].AppendJSON(nil)) {
					t.Errorf("%v got the answer of another: %s", v, got[0].AppendJSON(nil))
				}
			})
			if synctest.Wait(); i == 0 {
				continue
			}
		}
		close(busy)
		wg.Wait()
		// The first alone, three together, then each of these alone; those that fail count too.
		if got := f.seen(); !slices.Equal(got, []int{1, 3, 1, 1, 1}) {
			t.Errorf("batches of %v rows", got)
		}
	})
}

func TestOthersShapesAreOtherBatches(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, busy := newFake(), make(chan struct{})
		f.before = func() { <-busy }
		b := working(t, f, 8, 0)
		wide := tensor.Tensor{Type: tensor.Float32, Shape: []int64{1, 3}, Data: make([]byte, 12)}
		var wg sync.WaitGroup
		for _, in := range [][]tensor.Tensor{row(1, 1), row(1, 1), {wide}, row(1, 1), {wide}} {
			wg.Go(func() {
				got, err := b.do(t.Context(), in, 1)
				if err != nil || got[0].Shape[1] != in[0].Shape[1] {
					t.Errorf("%v %v", got, err)
				}
			})
			synctest.Wait()
		}
		close(busy)
		wg.Wait()
		if got := f.seen(); !slices.Equal(got, []int{1, 2, 2}) {
			t.Errorf("batches of %v rows", got)
		}
	})
}

func TestABatchWaitsOnlyWhenAsked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		b := working(t, f, 3, 10*time.Millisecond)
		begin := time.Now()
		if _, err := b.do(t.Context(), row(1, 1), 1); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(begin); waited != 10*time.Millisecond {
			t.Errorf("a lone request waited %v, want the delay", waited)
		}
		begin = time.Now()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if _, err := b.do(t.Context(), row(1, 1), 1); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if waited := time.Since(begin); waited != 0 || !slices.Equal(f.seen(), []int{1, 3}) {
			t.Errorf("a full batch waited %v: %v", waited, f.seen())
		}
	})
}

func TestRequestsOfClientsThatLeftAreDropped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f, busy := newFake(), make(chan struct{})
		f.before = func() { <-busy }
		b := working(t, f, 8, 0)
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := b.do(t.Context(), row(1, 1), 1); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		ctx, leave := context.WithCancel(t.Context())
		wg.Go(func() {
			if _, err := b.do(ctx, row(2, 2), 1); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		close(busy)
		wg.Wait()
		synctest.Wait()
		if got := f.seen(); !slices.Equal(got, []int{1}) {
			t.Errorf("batches of %v rows: the request of a client that had left was run", got)
		}
	})
}

func TestLargeRequestsAreCut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		b := working(t, f, 4, 0)
		var values []float32
		for i := range 20 {
			values = append(values, float32(i))
		}
		got, err := b.pieces(t.Context(), row(values...), 10)
		if err != nil {
			t.Fatal(err)
		}
		want := make([]float32, len(values))
		for i, v := range values {
			want[i] = 2 * v
		}
		if !got[0].Near(row(want...)[0], 0) {
			t.Errorf("%s", got[0].AppendJSON(nil))
		}
		for _, n := range f.seen() {
			if n > 4 {
				t.Errorf("batches of %v rows", f.seen())
			}
		}
	})
}
