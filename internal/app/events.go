package app

import (
	"context"
	"fmt"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/event"
	"tategu/internal/resource"
	"tategu/internal/store"
)

// validateWebhooks also finds two that rows could not tell apart.
func validateWebhooks(hooks []event.Webhook) error {
	seen := map[string]bool{}
	for _, w := range hooks {
		if err := w.Validate(); err != nil {
			return err
		}
		if seen[w.ID()] {
			return resource.Invalid("webhooks", "two webhooks are called %s", w.ID()).WithHint("give each a name of its own")
		}
		seen[w.ID()] = true
	}
	return nil
}

// batchEnded puts the end of a batch prediction job into the outbox. The event's id is
// made of the job's, which ends once.
func batchEnded(outbox *event.Outbox) func(context.Context, store.Tx, *pb.BatchPredictionJob) error {
	return func(ctx context.Context, tx store.Tx, job *pb.BatchPredictionJob) error {
		name, err := resource.ParseName(job.GetName())
		if err != nil {
			return err
		}
		data, err := protojson.Marshal(job)
		if err != nil {
			return fmt.Errorf("tell of %s: %w", job.GetName(), err)
		}
		end := strings.ToLower(strings.TrimPrefix(job.GetState().String(), "JOB_STATE_"))
		return outbox.Add(ctx, tx, event.Event{
			ID: "batch-" + name.Project() + "-" + path.Base(job.GetName()) + "-ended", Type: "tategu.batchPredictionJob." + end,
			Subject: job.GetName(), Project: name.Project(), Time: job.GetEndTime().AsTime(), Data: data,
		})
	}
}
