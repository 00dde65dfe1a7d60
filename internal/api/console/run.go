package console

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
)

// runReply is a pipeline run as it is now.
type runReply struct {
	Task string          `json:"task,omitempty"` // path of the task that was asked for
	Job  json.RawMessage `json:"job"`            // a v1beta1 PipelineJob with its tasks
}

// run answers the run ?resource=JOB, or JOB/TASK, at once: GetPipelineJob may wait
// for the end of a young one. ?spec=0 leaves out what never changes.
func (c *Console) run(w http.ResponseWriter, r *http.Request) error {
	at, err := c.find(r, r.URL.Query().Get("resource"))
	if err != nil {
		return err
	}
	v, err := c.load(r, at.resource)
	if err != nil {
		return err
	}
	job, ok := v.message.(*pb.PipelineJob)
	if !ok {
		return resource.Errorf(codes.NotFound, "%s is not a run of a pipeline", at.resource).WithHint("`tategu runs` lists them")
	}
	if job.JobDetail == nil {
		job.JobDetail = &pb.PipelineJobDetail{}
	}
	if job.JobDetail.TaskDetails, err = pipeline.Details(r.Context(), c.rows, job.Name, c.machine.Place); err != nil {
		return err
	}
	if r.URL.Query().Get("spec") == "0" {
		job.PipelineSpec = nil
	}
	reply := runReply{}
	for _, d := range job.JobDetail.TaskDetails {
		if at.part != "" && strings.TrimPrefix(at.part, "/tasks/") == strconv.FormatInt(d.TaskId, 10) {
			reply.Task = d.TaskUniqueName
		}
	}
	if reply.Job, err = protojson.Marshal(job); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(reply)
}
