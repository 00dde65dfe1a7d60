package schedule_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/schedule"
	"tategu/internal/store"
)

func TestRunsAcrossClockChanges(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.until("2000-03-24T12:00:00Z")
		w.create("TZ=Europe/Berlin 30 2 * * *", nil)
		w.until("2000-03-27T12:00:00Z") // 02:00 to 03:00 of the 26th is skipped
		spring := []string{"2000-03-25T01:30:00Z", "2000-03-26T01:00:00Z", "2000-03-27T00:30:00Z"}
		w.wantRan(spring...)
		w.change(func(s *pb.Schedule) error { return schedule.Pause(s, w.now()) })
		w.until("2000-10-27T12:00:00Z")
		w.change(func(s *pb.Schedule) error { return schedule.Resume(s, false, w.now()) })
		w.until("2000-10-30T12:00:00Z") // 02:00 to 03:00 of the 29th comes twice
		w.wantRan(append(spring, "2000-10-28T00:30:00Z", "2000-10-29T00:30:00Z", "2000-10-30T01:30:00Z")...)
		w.wantNext("2000-10-31T01:30:00Z")
	})
}

func TestAnswersWhatRan(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("0 * * * *", nil)
		s := w.get()
		if s.State != pb.Schedule_ACTIVE || !s.StartTime.AsTime().Equal(w.now()) || s.LastScheduledRunResponse != nil {
			t.Errorf("new schedule: %v", s)
		}
		w.wantNext("2000-01-01T01:00:00Z")
		w.pass(time.Hour)
		w.wantRan("2000-01-01T01:00:00Z")
		r := w.get().LastScheduledRunResponse
		if want := parent + "/pipelineJobs/row-7-20000101010000"; r.RunResponse != want || !r.ScheduledRunTime.AsTime().Equal(w.now()) {
			t.Errorf("response %v, want %s", r, want)
		}
	})
}

func TestStartEndAndMaximum(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		edit func(s *pb.Schedule, at func(string) *timestamppb.Timestamp)
		done string // still active just before
		want []string
	}{
		{"maximum", func(s *pb.Schedule, _ func(string) *timestamppb.Timestamp) { s.MaxRunCount = 2 }, "2000-01-01T02:00:00Z", []string{"2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z"}},
		{"start on a tick, end on a tick", func(s *pb.Schedule, at func(string) *timestamppb.Timestamp) {
			s.StartTime, s.EndTime = at("2000-01-01T03:00:00Z"), at("2000-01-01T04:00:00Z")
		}, "2000-01-01T04:00:00Z", []string{"2000-01-01T03:00:00Z", "2000-01-01T04:00:00Z"}},
		{"end between ticks", func(s *pb.Schedule, at func(string) *timestamppb.Timestamp) { s.EndTime = at("2000-01-01T01:30:00Z") }, "2000-01-01T01:30:00Z", []string{"2000-01-01T01:00:00Z"}},
		{"start has passed", func(s *pb.Schedule, at func(string) *timestamppb.Timestamp) {
			s.StartTime, s.MaxRunCount = at("1999-01-01T00:00:00Z"), 1
		}, "2000-01-01T01:00:00Z", []string{"2000-01-01T01:00:00Z"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				w.create("0 * * * *", func(s *pb.Schedule) {
					tt.edit(s, func(text string) *timestamppb.Timestamp { return timestamppb.New(w.at(text)) })
				})
				w.pass(w.at(tt.done).Sub(w.now()) - time.Second)
				if s := w.get().State; s != pb.Schedule_ACTIVE {
					t.Errorf("%s before the end", s)
				}
				w.pass(time.Second)
				if s := w.get(); s.State != pb.Schedule_COMPLETED || s.NextRunTime != nil {
					t.Errorf("%s with next run %v after the end", s.State, s.NextRunTime)
				}
				w.pass(24 * time.Hour)
				w.wantRan(tt.want...)
			})
		})
	}
}

func TestDowntime(t *testing.T) {
	t.Parallel()
	for _, catchUp := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.create("0 */6 * * *", nil)
			if catchUp {
				w.change(func(s *pb.Schedule) error { return schedule.Pause(s, w.now()) })
				w.change(func(s *pb.Schedule) error { return schedule.Resume(s, true, w.now()) })
			}
			w.pass(6 * time.Hour)
			w.stop()
			w.until("2000-01-02T12:00:10Z") // 12, 18, 0, 6 and 12 o'clock pass
			w.run()
			w.pass(time.Second)
			want := []string{"2000-01-01T06:00:00Z", "2000-01-02T12:00:00Z"}
			if catchUp {
				want = []string{"2000-01-01T06:00:00Z", "2000-01-01T12:00:00Z", "2000-01-01T18:00:00Z", "2000-01-02T00:00:00Z", "2000-01-02T06:00:00Z", "2000-01-02T12:00:00Z"}
			}
			w.wantRan(want...)
			w.wantNext("2000-01-02T18:00:00Z")
		})
	}
}

func TestDowntimeBeyondTheEnd(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("0 * * * *", func(s *pb.Schedule) { s.EndTime = timestamppb.New(w.at("2000-01-01T02:30:00Z")) })
		w.stop()
		w.until("2000-01-01T09:00:00Z")
		w.run()
		w.pass(time.Second)
		w.wantRan("2000-01-01T02:00:00Z")
		if s := w.get().State; s != pb.Schedule_COMPLETED {
			t.Errorf("the schedule is %s", s)
		}
	})
}

func TestClockIsSet(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("0 * * * *", nil)
		w.until("2000-01-01T01:10:00Z")
		w.offset.Add(int64(3 * time.Hour)) // 04:10: 2, 3 and 4 o'clock were jumped over
		w.pass(time.Minute)                // no timer saw it
		want := []string{"2000-01-01T01:00:00Z", "2000-01-01T04:00:00Z"}
		w.wantRan(want...)
		w.offset.Add(-int64(3 * time.Hour)) // 01:11 again
		w.pass(3*time.Hour + 30*time.Minute)
		w.wantRan(want...) // 02:00 to 04:00 came again, and had their runs or were passed
		w.wantNext("2000-01-01T05:00:00Z")

		// An update plans anew from the clock as it is; a tick that has its run gets
		// no other.
		w.offset.Add(-int64(time.Hour)) // 03:41
		w.update(func(s *pb.Schedule) { s.MaxRunCount = 3 })
		w.wantNext("2000-01-01T04:00:00Z")
		w.pass(30 * time.Minute)
		w.wantRan(want...)
		w.pass(time.Hour)
		w.wantRan(append(want, "2000-01-01T05:00:00Z")...)
	})
}

func TestPauseAndResume(t *testing.T) {
	t.Parallel()
	for _, catchUp := range []bool{false, true} {
		inWorld(t, func(w *world) {
			w.create("0 * * * *", func(s *pb.Schedule) { s.MaxRunCount = 4 })
			w.until("2000-01-01T01:30:00Z")
			w.change(func(s *pb.Schedule) error { return schedule.Pause(s, w.now()) })
			w.until("2000-01-01T03:30:00Z")
			w.wantRan("2000-01-01T01:00:00Z")
			w.change(func(s *pb.Schedule) error { return schedule.Resume(s, catchUp, w.now()) })
			w.pass(time.Second)
			want := []string{"2000-01-01T01:00:00Z"}
			if catchUp {
				want = append(want, "2000-01-01T02:00:00Z", "2000-01-01T03:00:00Z")
			}
			w.wantRan(want...)
			w.wantNext("2000-01-01T04:00:00Z")
			w.until("2000-01-01T04:00:00Z")
			w.wantRan(append(want, "2000-01-01T04:00:00Z")...)
			s := w.get()
			if s.CatchUp != catchUp || !s.LastPauseTime.AsTime().Equal(w.at("2000-01-01T01:30:00Z")) || !s.LastResumeTime.AsTime().Equal(w.at("2000-01-01T03:30:00Z")) {
				t.Errorf("schedule %v", s)
			}
			if done := s.State == pb.Schedule_COMPLETED; done != catchUp {
				t.Errorf("state %s after %d runs", s.State, s.StartedRunCount)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("0 12 * * *", nil)
		w.update(func(s *pb.Schedule) { s.TimeSpecification = &pb.Schedule_Cron{Cron: "TZ=Asia/Tokyo 30 * * * *"} })
		w.wantNext("2000-01-01T00:30:00Z")
		w.pass(time.Hour)
		w.wantRan("2000-01-01T00:30:00Z")
		w.update(func(s *pb.Schedule) { s.MaxRunCount = 1 })
		if s := w.get().State; s != pb.Schedule_COMPLETED {
			t.Errorf("the schedule is %s with as many runs as it may have", s)
		}
	})
}

func TestActiveRuns(t *testing.T) {
	t.Parallel()
	one := func(queue bool) func(s *pb.Schedule) {
		return func(s *pb.Schedule) { s.MaxConcurrentActiveRunCount, s.AllowQueueing = 1, queue }
	}
	t.Run("none waits", func(t *testing.T) {
		t.Parallel()
		inWorld(t, func(w *world) {
			w.create("0 * * * *", one(false))
			w.until("2000-01-01T02:10:00Z")
			w.wantRan("2000-01-01T01:00:00Z")
			if r := w.get().LastScheduledRunResponse; !strings.HasPrefix(r.RunResponse, "skipped: ") || !r.ScheduledRunTime.AsTime().Equal(w.at("2000-01-01T02:00:00Z")) {
				t.Errorf("response %v", r)
			}
			w.finish("2000-01-01T01:00:00Z")
			w.until("2000-01-01T03:00:00Z")
			w.wantRan("2000-01-01T01:00:00Z", "2000-01-01T03:00:00Z")
		})
	})
	t.Run("queue", func(t *testing.T) {
		t.Parallel()
		inWorld(t, func(w *world) {
			w.create("0 * * * *", one(true))
			w.until("2000-01-01T03:10:00Z")
			w.wantNext("2000-01-01T02:00:00Z") // in the past: behind the schedule
			w.stop()                           // 2 and 3 o'clock wait, 4 and 5 are missed
			w.until("2000-01-01T05:10:00Z")
			w.run()
			w.finish("2000-01-01T01:00:00Z")
			w.wantRan("2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z")
			w.finish("2000-01-01T02:00:00Z")
			w.finish("2000-01-01T03:00:00Z")
			w.wantRan("2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z", "2000-01-01T03:00:00Z", "2000-01-01T05:00:00Z")
		})
	})
	t.Run("catching up waits", func(t *testing.T) {
		t.Parallel()
		inWorld(t, func(w *world) {
			w.create("0 * * * *", one(false))
			w.change(func(s *pb.Schedule) error { return schedule.Pause(s, w.now()) })
			w.until("2000-01-01T02:30:00Z")
			w.change(func(s *pb.Schedule) error { return schedule.Resume(s, true, w.now()) })
			w.pass(time.Second)
			w.wantRan("2000-01-01T01:00:00Z")
			w.finish("2000-01-01T01:00:00Z")
			w.wantRan("2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z")
			w.until("2000-01-01T03:00:00Z") // not missed in the pause, so not waited for
			w.finish("2000-01-01T02:00:00Z")
			w.until("2000-01-01T04:00:00Z")
			w.wantRan("2000-01-01T01:00:00Z", "2000-01-01T02:00:00Z", "2000-01-01T04:00:00Z")
		})
	})
}

func TestRunThatCannotBe(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		good := w.prepare
		var fail atomic.Pointer[error]
		failWith := func(err error) { fail.Store(&err) }
		failWith(resource.Errorf(codes.NotFound, "the account is gone"))
		w.prepare = func(ctx context.Context, s *pb.Schedule, tick time.Time) (schedule.Run, error) {
			if err := *fail.Load(); err != nil {
				return nil, err
			}
			return good(ctx, s, tick)
		}
		w.create("0 * * * *", nil)
		w.until("2000-01-01T01:00:01Z")
		w.wantRan()
		if r := w.get().LastScheduledRunResponse.GetRunResponse(); !strings.Contains(r, "the account is gone") {
			t.Errorf("response %q", r)
		}
		w.wantNext("2000-01-01T02:00:00Z")

		failWith(errors.New("this passes"))
		w.until("2000-01-01T02:01:00Z")
		w.wantNext("2000-01-01T02:00:00Z") // tried again and again
		failWith(nil)
		w.pass(time.Minute)
		w.wantRan("2000-01-01T02:00:00Z")
	})
}

func TestDeleted(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("0 * * * *", nil)
		err := w.store.Update(w.t.Context(), func(tx store.Tx) error { return tx.Delete(w.t.Context(), resource.KindSchedules, name) })
		if err != nil {
			t.Fatal(err)
		}
		w.pass(3 * time.Hour)
		if got := w.ran(); got != "" {
			t.Errorf("ran %s", got)
		}
	})
}

// flaky is a store whose writes now and then do not reach the disk, or do without
// the writer being told.
type flaky struct {
	store.Store
	n int
}

func (f *flaky) Update(ctx context.Context, fn func(tx store.Tx) error) error {
	f.n++
	switch f.n % 3 {
	case 0:
		return errors.New("the write was lost")
	case 1:
		if err := f.Store.Update(ctx, fn); err != nil {
			return err
		}
		return errors.New("the answer was lost")
	default:
		return f.Store.Update(ctx, fn)
	}
}

func TestEachTickOnceOverLostWrites(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.create("*/10 * * * *", func(s *pb.Schedule) { s.MaxRunCount = 12 })
		real := w.store
		for range 13 { // a server that dies at each tick, before, within and after its write
			w.stop()
			w.store = &flaky{Store: real, n: w.now().Minute() / 10 % 3}
			w.run()
			w.pass(10 * time.Minute)
		}
		w.store = real
		w.wantRan(
			"2000-01-01T00:10:00Z", "2000-01-01T00:20:00Z", "2000-01-01T00:30:00Z", "2000-01-01T00:40:00Z", "2000-01-01T00:50:00Z", "2000-01-01T01:00:00Z",
			"2000-01-01T01:10:00Z", "2000-01-01T01:20:00Z", "2000-01-01T01:30:00Z", "2000-01-01T01:40:00Z", "2000-01-01T01:50:00Z", "2000-01-01T02:00:00Z",
		)
	})
}
