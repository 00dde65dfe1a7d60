package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// away is for how many ticks no server seems to have run at the first kill.
const away = 8

// ticks has schedules that come due each minute. So that a short loop sees many
// ticks, the time of the next one is set back while there is no server, as if there
// had been none for some minutes.
type ticks struct {
	*flows
	all []*clock
}

func newTicks(f *flows) *ticks { return &ticks{flows: f} }

// clock is one schedule.
type clock struct {
	name    string // full
	display string
	catchUp bool
	most    int       // of runs at the same time
	from    time.Time // its first tick
}

type scheduleDetail struct {
	Name, State, Cron string
	NextRunTime       time.Time
	StartedRunCount   string
	LastScheduledRun  struct{ RunResponse string } `json:"lastScheduledRunResponse"`
}

// begin makes the schedules: one of which each missed tick has a run, two at a time,
// and one of which only the latest has.
func (t *ticks) begin(ctx context.Context) error {
	t.all = []*clock{{display: "caught-up", catchUp: true, most: 2}, {display: "latest", most: 1}}
	for _, c := range t.all {
		var s scheduleDetail
		_, err := t.call(ctx, http.MethodPost, api+"schedules", map[string]any{
			"displayName": c.display, "cron": "* * * * *", "maxConcurrentRunCount": 1, "maxConcurrentActiveRunCount": c.most, "allowQueueing": true,
			"createPipelineJobRequest": map[string]any{"parent": strings.Trim(strings.TrimPrefix(api, "/v1"), "/"), "pipelineJob": map[string]any{
				"displayName": c.display, "pipelineSpec": t.specs["flow-tick"],
				"runtimeConfig": map[string]any{"gcsOutputDirectory": "gs://" + firstBucket + "/flows", "parameterValues": map[string]any{"slow": 0.3}},
			}},
		}, &s)
		if err != nil {
			return fmt.Errorf("schedule %s: %w", c.display, err)
		}
		c.name, c.from = s.Name, s.NextRunTime
		if !c.catchUp {
			continue
		}
		for _, verb := range []string{":pause", ":resume"} {
			if _, err := t.call(ctx, http.MethodPost, "/v1/"+c.name+verb, map[string]any{"catchUp": true}, nil); err != nil {
				return fmt.Errorf("schedule %s: %w", c.display, err)
			}
		}
	}
	return nil
}

// setBack writes into the data directory of a server that was killed.
func (t *ticks) setBack(ctx context.Context) error {
	rows, err := sqlite.Open(ctx, filepath.Join(t.server.data, "state.db"))
	if err != nil {
		return err
	}
	err = rows.Update(ctx, func(tx store.Tx) error {
		for _, c := range t.all {
			s := &pb.Schedule{}
			row, err := store.GetMessage(ctx, tx, resource.KindSchedules, c.name, s)
			if err != nil {
				return err
			}
			c.from = s.NextRunTime.AsTime().Add(-away * time.Minute)
			s.NextRunTime = timestamppb.New(c.from)
			if err := store.PutMessage(ctx, tx, row, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		_ = rows.Close() // nothing was written
		return err
	}
	return rows.Close()
}

// end waits until no tick is left, pauses the schedules and judges their runs.
func (t *ticks) end(ctx context.Context) error {
	for _, c := range t.all {
		if err := t.drain(ctx, c); err != nil {
			return fmt.Errorf("schedule %s: %w", c.display, err)
		}
		runs, err := t.list(ctx, c)
		if err != nil {
			return err
		}
		for _, r := range runs {
			if err := t.follow(ctx, r); err != nil {
				return fmt.Errorf("run %s: %w", r.id, err)
			}
		}
		if err := t.judge(ctx, c, runs); err != nil {
			return fmt.Errorf("schedule %s: %w", c.display, err)
		}
	}
	return nil
}

// drain pauses a schedule once its next tick is in the future.
func (t *ticks) drain(ctx context.Context, c *clock) error {
	for began := time.Now(); ; {
		var s scheduleDetail
		if _, err := t.get(ctx, "/v1/"+c.name, &s); err != nil {
			return err
		}
		if s.NextRunTime.After(time.Now().Add(5*time.Second)) || s.State == "PAUSED" {
			_, err := t.insist(ctx, http.MethodPost, "/v1/"+c.name+":pause", map[string]any{}, nil)
			return err
		}
		if time.Since(began) > flowPatience {
			return fmt.Errorf("it is still at %v: %s", s.NextRunTime, s.LastScheduledRun.RunResponse)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// list gives the runs of a schedule.
func (t *ticks) list(ctx context.Context, c *clock) ([]*flowRun, error) {
	var out []*flowRun
	for page := ""; ; {
		var list struct {
			PipelineJobs  []*flowDetail
			NextPageToken string
		}
		if _, err := t.get(ctx, api+"pipelineJobs?pageSize=100&pageToken="+page, &list); err != nil {
			return nil, err
		}
		for _, d := range list.PipelineJobs {
			if d.ScheduleName == c.name {
				out = append(out, &flowRun{id: path.Base(d.Name), pipeline: "flow-tick"})
			}
		}
		if page = list.NextPageToken; page == "" {
			return out, nil
		}
	}
}

// judge says which ticks have no run, or several, or one too many at a time.
func (t *ticks) judge(ctx context.Context, c *clock, runs []*flowRun) error {
	var s scheduleDetail
	if _, err := t.get(ctx, "/v1/"+c.name, &s); err != nil {
		return err
	}
	if s.StartedRunCount != strconv.Itoa(len(runs)) {
		t.book.problem("schedule %s: it says that it started %s runs, and there are %d", c.display, s.StartedRunCount, len(runs))
	}
	got := map[time.Time]int{}
	for _, r := range runs {
		tick, err := time.Parse("20060102150405", r.id[strings.LastIndexByte(r.id, '-')+1:])
		if err != nil {
			return err
		}
		got[tick]++
		if r.detail.State != runSucceeded {
			t.book.problem("schedule %s: run %s is %s", c.display, r.id, r.detail.State)
		}
	}
	for _, problem := range c.judge(got, s.NextRunTime, t.server.downs) {
		t.book.problem("schedule %s: %s; its runs are of %v", c.display, problem, slices.SortedFunc(maps.Keys(got), time.Time.Compare))
	}
	if most := overlap(runs); most > c.most {
		t.book.problem("schedule %s: %d runs were active at the same time, want %d at most", c.display, most, c.most)
	}
	t.book.say("schedule %s: %d ticks had their run, %d at the same time", c.display, len(runs), overlap(runs))
	return nil
}

// judge compares how many runs each tick has with how many it should have.
func (c *clock) judge(got map[time.Time]int, next time.Time, downs []down) (problems []string) {
	known := 0
	for at := c.from.UTC(); at.Before(next); at = at.Add(time.Minute) {
		switch n := got[at]; {
		case n > 1:
			known++
			problems = append(problems, fmt.Sprintf("%d runs of the tick %v", n, at))
		case n == 1:
			known++
		case c.catchUp || !c.mayMiss(at, got, downs):
			problems = append(problems, fmt.Sprintf("no run of the tick %v", at))
		}
	}
	if known != len(got) {
		problems = append(problems, fmt.Sprintf("%d runs of ticks that are not between %v and %v", len(got)-known, c.from, next))
	}
	return problems
}

// mayMiss reports a tick that passed while there was no server, where a later one of
// that time has a run. The first time without a server is that to which the time of
// the next tick was set back.
func (c *clock) mayMiss(tick time.Time, got map[time.Time]int, downs []down) bool {
	for i, d := range downs {
		if i == 0 {
			d.from = c.from
		}
		for at := range got {
			if !tick.Before(d.from) && at.After(tick) && !at.After(d.to.Add(5*time.Second)) {
				return true
			}
		}
	}
	return false
}

// overlap is how many of the runs had not ended at the same time, at most.
func overlap(runs []*flowRun) int {
	most := 0
	for _, a := range runs {
		n := 0
		for _, b := range runs {
			if !b.detail.CreateTime.After(a.detail.CreateTime) && b.detail.EndTime.After(a.detail.CreateTime) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}
