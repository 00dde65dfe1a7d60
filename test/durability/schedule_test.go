//go:build linux

package durability

import (
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
	"tategu/internal/store/sqlite"
)

// scheduleRequest is a schedule of every minute whose pipeline imports an artifact.
const scheduleRequest = `{"displayName":"minutes","cron":"* * * * *","maxConcurrentRunCount":"1","createPipelineJobRequest":{"parent":"projects/p/locations/l","pipelineJob":{
	"runtimeConfig":{"gcsOutputDirectory":"gs://bucket/root"},
	"pipelineSpec":{"schemaVersion":"2.1.0","pipelineInfo":{"name":"import"},
		"components":{"comp":{"executorLabel":"exec","outputDefinitions":{"artifacts":{"artifact":{"artifactType":{"schemaTitle":"system.Artifact","schemaVersion":"0.0.1"}}}}}},
		"deploymentSpec":{"executors":{"exec":{"importer":{"artifactUri":{"constant":"gs://bucket/x"},"typeSchema":{"schemaTitle":"system.Artifact","schemaVersion":"0.0.1"}}}}},
		"root":{"dag":{"tasks":{"load":{"taskInfo":{"name":"load"},"componentRef":{"name":"comp"}}}}}}}}}`

// TestScheduleOverKills lets a schedule catch up with hundreds of ticks while its
// server is killed again and again: each tick has exactly one run.
func TestScheduleOverKills(t *testing.T) {
	t.Parallel()
	const missed, kills = 300, 8
	data := filepath.Join(t.TempDir(), "data")
	s := start(t, data, options{})
	var made struct{ Name string }
	s.do(http.MethodPost, "/v1/projects/p/locations/l/schedules", scheduleRequest).decode(t, &made)
	s.do(http.MethodPost, "/v1/"+made.Name+":pause", "").decode(t, &struct{}{})
	s.kill()
	first := time.Now().UTC().Truncate(time.Minute).Add(-missed * time.Minute)
	planBack(t, data, made.Name, first)

	s = start(t, data, options{})
	s.do(http.MethodPost, "/v1/"+made.Name+":resume", `{"catchUp":true}`).decode(t, &struct{}{})
	random := rand.New(rand.NewPCG(1, 2))
	var schedule struct{ NextRunTime, StartedRunCount string }
	for range kills {
		wait(t, time.Duration(10+random.IntN(50))*time.Millisecond)
		s.kill()
		s = start(t, data, options{})
		s.get("/v1/"+made.Name, &schedule)
		t.Logf("killed after %s of %d runs were started", schedule.StartedRunCount, missed)
	}
	for {
		s.get("/v1/"+made.Name, &schedule)
		next, err := time.Parse(time.RFC3339, schedule.NextRunTime)
		if err != nil {
			t.Fatal(err)
		}
		if next.After(time.Now()) {
			break
		}
		wait(t, 20*time.Millisecond)
	}
	s.do(http.MethodPost, "/v1/"+made.Name+":pause", "").decode(t, &struct{}{})
	s.get("/v1/"+made.Name, &schedule)
	names := runsOf(s, made.Name)
	if strconv.Itoa(len(names)) != schedule.StartedRunCount || len(names) < missed {
		t.Errorf("%d runs, started_run_count %s, %d ticks missed", len(names), schedule.StartedRunCount, missed)
	}
	for i, name := range names {
		tick := first.Add(time.Duration(i) * time.Minute).Format("20060102150405")
		if got := name[len(name)-len(tick):]; got != tick {
			t.Fatalf("run %d is of %s, want %s", i, got, tick)
		}
	}
}

// planBack sets the next tick of a paused schedule into the past.
func planBack(t *testing.T, data, name string, first time.Time) {
	t.Helper()
	st, err := sqlite.Open(t.Context(), filepath.Join(data, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	err = st.Update(t.Context(), func(tx store.Tx) error {
		s := &pb.Schedule{}
		row, err := store.GetMessage(t.Context(), tx, resource.KindSchedules, name, s)
		if err != nil {
			return err
		}
		s.NextRunTime = timestamppb.New(first)
		return store.PutMessage(t.Context(), tx, row, s)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
}

// runsOf lists the runs of a schedule by the time of their ticks.
func runsOf(s *server, schedule string) []string {
	s.t.Helper()
	var names []string
	query := url.Values{"filter": {"schedule_name=" + schedule}, "pageSize": {"100"}, "readMask": {"name"}}
	for {
		var page struct {
			PipelineJobs  []struct{ Name string }
			NextPageToken string
		}
		s.get("/v1/projects/p/locations/l/pipelineJobs?"+query.Encode(), &page)
		for _, j := range page.PipelineJobs {
			names = append(names, j.Name)
		}
		if page.NextPageToken == "" {
			slices.Sort(names)
			return names
		}
		query.Set("pageToken", page.NextPageToken)
	}
}

// wait lets real time go by, as a server in another process needs it.
func wait(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}
