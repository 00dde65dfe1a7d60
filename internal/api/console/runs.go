package console

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// runsPage is a page of the runs of pipelines, newest first.
type runsPage struct {
	frame
	Rows        []runRow
	State, Find string
	States      []stateView
	Older       string // address of the next page
	First       string // of the first one, on others
	Looked      int    // runs that were looked through; 0 = to the end
}

type runRow struct {
	ID, Title, Href, Project string
	Phase, Label             string
	Problem                  string
	Created                  time.Time
	Took                     string
	Live                     bool
}

// runsPerPage is a page of the list; lookThrough bounds the runs that are read for one
// when few match.
const (
	runsPerPage = 50
	lookThrough = 2000
)

// runs lists the runs that the caller may see: ?state= and ?find= (a part of the
// name) choose among them, ?beyond= goes on after a page.
func (c *Console) listRuns(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	page := runsPage{frame: c.frame("Runs"), State: q.Get("state"), Find: strings.TrimSpace(q.Get("find"))}
	states, err := statesNamed(page.State)
	if err != nil {
		return err
	}
	for _, p := range []phase{failed, running, waiting, cancelled, succeeded} {
		page.States = append(page.States, stateView{Name: p.String(), Label: p.Label()})
	}
	query := store.Query{Kind: resource.KindPipelineJobs, Order: store.ByNewest, Limit: runsPerPage * 2, States: states}
	if query.Beyond, err = readBeyond(q.Get("beyond")); err != nil {
		return err
	}
	if query.Beyond != nil {
		page.First = page.link(nil)
	}
	may := map[string]bool{}
	for seen := 0; ; {
		rows, err := c.rows.List(r.Context(), query)
		if err != nil {
			return err
		}
		for i, row := range rows {
			seen++
			if err := c.addRun(r, &page, row, may); err != nil {
				return err
			}
			if last := i == len(rows)-1 && len(rows) < query.Limit; len(page.Rows) == runsPerPage || seen >= lookThrough {
				if !last {
					page.Older = page.link(&row)
				}
				if len(page.Rows) < runsPerPage && !last {
					page.Looked = seen
				}
				return c.render(w, r, runsList(&page))
			}
		}
		if len(rows) < query.Limit {
			return c.render(w, r, runsList(&page))
		}
		query.Beyond = &rows[len(rows)-1]
	}
}

// addRun puts a run on the page if it is asked for and the caller may see it.
func (c *Console) addRun(r *http.Request, page *runsPage, row store.Row, may map[string]bool) error {
	if !c.mayList(r, row, may) {
		return nil
	}
	job := &pb.PipelineJob{}
	if err := store.Unmarshal(row, job); err != nil {
		return err
	}
	name, err := resource.ParseName(row.Key)
	if err != nil {
		return err
	}
	if page.Find != "" && !strings.Contains(strings.ToLower(job.DisplayName+" "+path.Base(row.Key)), strings.ToLower(page.Find)) {
		return nil
	}
	p := phaseOfRun(job.State)
	v := runRow{
		ID: path.Base(row.Key), Title: or(job.DisplayName, path.Base(row.Key)), Href: "/console/" + row.Key, Project: name.Project(),
		Phase: p.String(), Label: p.Label(), Created: row.Created, Live: p == running,
	}
	if job.StartTime != nil {
		end := c.now()
		if job.EndTime != nil {
			end = job.EndTime.AsTime()
		}
		v.Took = span(end.Sub(job.StartTime.AsTime()))
	}
	if p == failed {
		v.Problem = firstLine(job.GetError().GetMessage())
		if _, task, ok := strings.Cut(v.Problem, ".; task "); ok { // before it are the words of the managed service
			v.Problem = task
		}
		v.Problem, _, _ = strings.Cut(v.Problem, "; `") // the next step is on the run's page
	}
	page.Rows = append(page.Rows, v)
	return nil
}

// statesNamed gives the states of rows that a page calls so.
func statesNamed(name string) ([]string, error) {
	if name == "" {
		return nil, nil
	}
	var out []string
	for number, state := range pb.PipelineState_name {
		if p := phaseOfRun(pb.PipelineState(number)); p.String() == name && p != none {
			out = append(out, state)
		}
	}
	if len(out) == 0 {
		return nil, resource.Invalid("state", "%.40q is not a state of runs", name)
	}
	slices.Sort(out)
	return out, nil
}

func (p *runsPage) link(beyond *store.Row) string {
	q := url.Values{}
	if p.State != "" {
		q.Set("state", p.State)
	}
	if p.Find != "" {
		q.Set("find", p.Find)
	}
	if beyond != nil {
		q.Set("beyond", base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(beyond.Created.UnixNano(), 10)+" "+beyond.Key)))
	}
	return "/console/runs?" + q.Encode()
}

// readBeyond reads where a page of the list ended.
func readBeyond(text string) (*store.Row, error) {
	if text == "" {
		return nil, nil //nolint:nilnil // from the beginning
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	at, key, ok := strings.Cut(string(raw), " ")
	nanos, err2 := strconv.ParseInt(at, 10, 64)
	if err != nil || err2 != nil || !ok {
		return nil, resource.Invalid("beyond", "%.40q is not from a page of this list", text).WithHint("open /console/runs")
	}
	return &store.Row{Kind: resource.KindPipelineJobs, Key: key, Created: time.Unix(0, nanos)}, nil
}
