package console

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"tategu/internal/resource"
	"tategu/internal/store"
)

// resourceView is what a person wants to know of any resource first.
type resourceView struct {
	Name    string        `json:"name"`
	Kind    string        `json:"kind"`
	Title   string        `json:"displayName"`
	State   string        `json:"state,omitempty"`
	Error   string        `json:"error,omitempty"`
	Created time.Time     `json:"createTime"`
	Ended   time.Time     `json:"endTime,omitzero"`
	Next    time.Time     `json:"nextRunTime,omitzero"` // of a schedule
	Took    time.Duration `json:"-"`
	message proto.Message
}

// views makes an empty message for every kind that the pages show.
func views() map[store.Kind]func() resourceView {
	of := func(m func() proto.Message) func() resourceView {
		return func() resourceView { return resourceView{message: m()} }
	}
	return map[store.Kind]func() resourceView{
		resource.KindPipelineJobs:        of(func() proto.Message { return &pb.PipelineJob{} }),
		resource.KindSchedules:           of(func() proto.Message { return &pb.Schedule{} }),
		resource.KindCustomJobs:          of(func() proto.Message { return &pb.CustomJob{} }),
		resource.KindBatchPredictionJobs: of(func() proto.Message { return &pb.BatchPredictionJob{} }),
		resource.KindEndpoints:           of(func() proto.Message { return &pb.Endpoint{} }),
		resource.KindModels:              of(func() proto.Message { return &pb.Model{} }),
		resource.KindArtifacts:           of(func() proto.Message { return &pb.Artifact{} }),
	}
}

// shown lists the kinds of the front page, jobs first.
func shown() []store.Kind {
	return []store.Kind{resource.KindPipelineJobs, resource.KindSchedules, resource.KindCustomJobs, resource.KindBatchPredictionJobs, resource.KindEndpoints, resource.KindModels}
}

func (c *Console) view(row store.Row) (resourceView, error) {
	make, ok := c.types[row.Kind]
	if !ok {
		return resourceView{}, resource.NotFound(row.Key)
	}
	v := make()
	if err := store.Unmarshal(row, v.message); err != nil {
		return v, err
	}
	v.Name, v.Kind, v.State, v.Created = row.Key, string(row.Kind), row.State, row.Created
	if m, ok := v.message.(interface{ GetDisplayName() string }); ok {
		v.Title = m.GetDisplayName()
	}
	if m, ok := v.message.(interface{ GetEndTime() *timestamppb.Timestamp }); ok && ends(v.message) && m.GetEndTime() != nil {
		v.Ended = m.GetEndTime().AsTime()
		v.Took = v.Ended.Sub(v.Created)
	}
	if m, ok := v.message.(interface{ GetError() *spb.Status }); ok {
		v.Error = m.GetError().GetMessage()
	}
	if s, ok := v.message.(*pb.Schedule); ok && s.GetState() == pb.Schedule_ACTIVE && s.GetNextRunTime() != nil {
		v.Next = s.GetNextRunTime().AsTime()
	}
	if e, ok := v.message.(*pb.Endpoint); ok {
		v.State = strconv.Itoa(len(e.GetDeployedModels())) + " deployed"
	}
	return v, nil
}

// recent gives the newest resources of each shown kind that the caller may read, of
// the newest that there are: other projects' work must not hide one's own.
func (c *Console) recent(r *http.Request, perKind int) ([]resourceView, error) {
	out := []resourceView{}
	may := map[string]bool{} // list a kind, by kind and project
	for _, kind := range shown() {
		q := store.Query{Kind: kind, Order: store.ByNewest, Limit: 100}
		for found, seen := 0, 0; found < perKind && seen < newest; seen += q.Limit {
			rows, err := c.rows.List(r.Context(), q)
			if err != nil {
				return nil, err
			}
			for _, row := range rows {
				if found == perKind || !c.mayList(r, row, may) {
					continue
				}
				v, err := c.view(row)
				if err != nil {
					return nil, err
				}
				out, found = append(out, v), found+1
			}
			if len(rows) < q.Limit {
				break
			}
			q.Beyond = &rows[len(rows)-1]
		}
	}
	return out, nil
}

func (c *Console) mayList(r *http.Request, row store.Row, known map[string]bool) bool {
	name, err := resource.ParseName(row.Key)
	if err != nil {
		return false
	}
	key := string(row.Kind) + " " + name.Project()
	may, asked := known[key]
	if !asked {
		may = c.allow(r, name.Project(), "aiplatform."+string(row.Kind)+".list") == nil
		known[key] = may
	}
	return may
}

// load reads one resource by its full name, after a permission check.
func (c *Console) load(r *http.Request, full string) (resourceView, error) {
	name, err := resource.ParseName(full)
	if err != nil {
		return resourceView{}, err
	}
	if err := c.allow(r, name.Project(), "aiplatform."+name.Collection()+".get"); err != nil {
		return resourceView{}, err
	}
	row, err := c.rows.Get(r.Context(), store.Kind(name.Collection()), name.String())
	if err != nil {
		return resourceView{}, err
	}
	return c.view(row)
}

type pageData struct {
	frame
	List    []resourceView
	One     *resourceView
	Load    *Load
	JSON    string
	Logs    []logView
	Refresh bool
}

type logView struct {
	Label, Text string
	More        bool
}

// pageLog bounds the log shown in a page; the whole is read with `tategu logs`.
const pageLog = 64 << 10

func (c *Console) index(w http.ResponseWriter, r *http.Request) error {
	list, err := c.recent(r, 50)
	if err != nil {
		return err
	}
	load := c.machine.Load()
	// Other projects' work is counted and not shown.
	load.Queue = slices.DeleteFunc(load.Queue, func(q Waiter) bool {
		return c.allow(r, q.Project, "aiplatform.customJobs.list") != nil
	})
	return c.render(w, r, indexPage(pageData{frame: c.frame("Overview"), List: list, Load: &load}))
}

func (c *Console) show(w http.ResponseWriter, r *http.Request) error {
	v, err := c.load(r, r.PathValue("name"))
	if err != nil {
		return err
	}
	if v.Kind == resource.KindPipelineJobs {
		return c.runPage(w, r, v)
	}
	text, err := protojson.MarshalOptions{Multiline: true}.Marshal(v.message)
	if err != nil {
		return fmt.Errorf("show %s: %w", v.Name, err)
	}
	data := pageData{frame: c.frame(or(v.Title, v.Name)), One: &v, JSON: string(text), Refresh: v.Ended.IsZero() && ends(v.message)}
	streams, err := c.logs.Streams(r.Context(), v.Name)
	if err != nil {
		return err
	}
	for _, s := range streams {
		p, err := c.logs.Read(r.Context(), s.ID, 0, pageLog)
		if err != nil {
			return err
		}
		data.Logs = append(data.Logs, logView{Label: s.Label, Text: string(p), More: len(p) == pageLog})
	}
	return c.render(w, r, resourcePage(data))
}

// ends reports what runs to an end; the end of a schedule is a plan.
func ends(m proto.Message) bool {
	_, planned := m.(*pb.Schedule)
	_, ok := m.(interface{ GetEndTime() *timestamppb.Timestamp })
	return ok && !planned
}
