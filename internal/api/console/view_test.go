package console_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// Schedules are listed with their next run. Their end is a plan: the page neither
// says what they took nor asks for itself again.
func TestSchedules(t *testing.T) {
	t.Parallel()
	rows, _, srv := serve(t)
	const parent = "projects/p/locations/l"
	next := time.Date(2030, 1, 2, 3, 30, 0, 0, time.UTC)
	for id, state := range map[string]pb.Schedule_State{"1": pb.Schedule_ACTIVE, "2": pb.Schedule_PAUSED} {
		s := &pb.Schedule{
			Name: parent + "/schedules/" + id, DisplayName: "nightly-" + id, State: state,
			NextRunTime: timestamppb.New(next), EndTime: timestamppb.New(next.AddDate(1, 0, 0)),
		}
		err := rows.Update(t.Context(), func(tx store.Tx) error {
			return store.PutMessage(t.Context(), tx, store.Row{Kind: resource.KindSchedules, Key: s.Name, Parent: parent, State: s.State.String()}, s)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	code, page := get(t, srv.URL+"/")
	if code != http.StatusOK || !strings.Contains(page, "nightly-1") || !strings.Contains(page, "nightly-2") || strings.Count(page, "next run 2030-01-02 03:30:00") != 1 {
		t.Errorf("%d: %s", code, page)
	}
	for _, path := range []string{"/console/" + parent + "/schedules/1", "/vertex-ai/locations/l/pipelines/schedules/1?project=p"} {
		code, page = get(t, srv.URL+path)
		if code != http.StatusOK || !strings.Contains(page, "next run 2030-01-02 03:30:00") || strings.Contains(page, "took") || strings.Contains(page, `http-equiv="refresh"`) {
			t.Errorf("%s: %d: %s", path, code, page)
		}
	}
}
