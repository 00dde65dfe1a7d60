package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

// findBatchJob finds a batch prediction job by its name, id or display name (the newest
// of that name); nil = there is none.
func (c *client) findBatchJob(ctx context.Context, name string) (*pb.BatchPredictionJob, error) {
	if n, err := resource.ParseName(name); err == nil && n.Collection() != "batchPredictionJobs" {
		return nil, nil
	}
	job, err := c.batchJob(ctx, name)
	if err == nil || !isMissing(err) {
		return job, err
	}
	q := url.Values{"pageSize": {"1"}, "orderBy": {"createTime desc"}, "filter": {fmt.Sprintf("displayName=%q", name)}}
	var page struct {
		Jobs []json.RawMessage `json:"batchPredictionJobs"`
	}
	if err := c.call(ctx, http.MethodGet, "/v1beta1/projects/"+url.PathEscape(c.project)+"/locations/-/batchPredictionJobs?"+q.Encode(), nil, &page); err != nil || len(page.Jobs) == 0 {
		return nil, err
	}
	job = &pb.BatchPredictionJob{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(page.Jobs[0], job); err != nil {
		return nil, fmt.Errorf("read a batch prediction job: %w", err)
	}
	return job, nil
}

// whyBatch writes about the batch prediction job called name; there is nothing else of
// that name, which missing says.
func whyBatch(cmd *cobra.Command, c *client, name string, missing error) error {
	job, err := c.findBatchJob(cmd.Context(), name)
	if err != nil {
		return err
	}
	if job == nil {
		return missing
	}
	var text strings.Builder
	fmt.Fprintf(&text, "batch prediction job %s (%s): %s\n", path.Base(job.GetName()), job.GetDisplayName(), shortState(job.GetState().String()))
	if s := job.GetCompletionStats(); s != nil {
		fmt.Fprintf(&text, "results: %d, errors: %d\n", s.GetSuccessfulCount(), s.GetFailedCount())
	}
	if job.GetError() != nil {
		tell(&text, "the job", job.GetError().GetMessage(), problemOf(job.GetError()))
	}
	for _, f := range job.GetPartialFailures() {
		p := problemOf(f)
		fmt.Fprintf(&text, "  %s", f.GetMessage())
		if p.cause != "" && !strings.Contains(f.GetMessage(), "cause: "+p.cause) {
			fmt.Fprintf(&text, " (cause: %s)", p.cause)
		}
		text.WriteByte('\n')
	}
	if dir := job.GetOutputInfo().GetGcsOutputDirectory(); dir != "" {
		fmt.Fprintf(&text, "files of results: %s\n", dir)
		if job.GetCompletionStats().GetFailedCount() > 0 {
			fmt.Fprintf(&text, "all that failed: tategu sql --job j=%s \"SELECT * FROM j_errors\"\n", path.Base(job.GetName()))
		}
	}
	_, err = io.WriteString(cmd.OutOrStdout(), text.String())
	return err
}
