package aiplatform

import (
	"bytes"
	"context"
	"strconv"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/proto"

	"tategu/internal/pipeline"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// original finds the run that a rerun goes on with by its numeric id, which clients
// read from its label (google-cloud-aiplatform 2.7.0, preview/pipelinejob, rerun).
func (s *PipelineJobs) original(ctx context.Context, parent resource.Name, id int64) (string, error) {
	if id == 0 {
		return "", nil
	}
	number := strconv.FormatInt(id, 10)
	q := store.Query{Kind: resource.KindPipelineJobs, Parent: parent.String(), Order: store.ByNewest, Limit: 500}
	for {
		rows, err := s.std.store.List(ctx, q)
		if err != nil {
			return "", err
		}
		for _, row := range rows {
			if !bytes.Contains(row.Data, []byte(number)) { // labels stand in a message as they are
				continue
			}
			job := &pb.PipelineJob{}
			if err := proto.Unmarshal(row.Data, job); err != nil {
				return "", err
			}
			if job.Labels[pipeline.RunNumberLabel] == number {
				return row.Key, nil
			}
		}
		if len(rows) < q.Limit {
			return "", resource.Invalid("pipeline_job.original_pipeline_job_id", "no run of %s has the number %s", parent, number).
				WithHint("it is the value of the original run's label %s, and the run must be in the same project and location", pipeline.RunNumberLabel)
		}
		q.Beyond = &rows[len(rows)-1]
	}
}
