package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/modelformat"
	"tategu/internal/serving"
)

// whyEndpoint writes about the endpoint called name; there is no run of that name,
// which missing says.
func whyEndpoint(cmd *cobra.Command, c *client, name string, missing error) error {
	e, err := c.fetchEndpoint(cmd.Context(), name)
	if err != nil {
		return err
	}
	if e == nil {
		return whyBatch(cmd, c, name, missing)
	}
	var text strings.Builder
	tellReplicas(&text, e, func(d *pb.DeployedModel) string { return c.workersOf(cmd.Context(), e, d) })
	_, err = io.WriteString(cmd.OutOrStdout(), text.String())
	return err
}

// workersOf says how many workers a replica of an archive of TorchServe's has and why, ""
// where the model is none, or no replica is there to be asked.
func (c *client) workersOf(ctx context.Context, e *pb.Endpoint, d *pb.DeployedModel) string {
	if d.GetStatus().GetAvailableReplicaCount() == 0 {
		return ""
	}
	var models []struct {
		Workers []json.RawMessage `json:"workers"`
		Scaling string            `json:"scaling"`
	}
	err := c.call(ctx, http.MethodGet, "/v1beta1/"+e.GetName()+"/deployedModels/"+url.PathEscape(d.GetId())+"/torchserve/models/"+modelformat.TorchModel, nil, &models)
	if refused, ok := errors.AsType[*answerError](err); ok && (refused.status == http.StatusBadRequest || refused.status == http.StatusNotFound) {
		return "" // it is served by something else
	}
	switch {
	case err != nil:
		return "workers: not known: " + err.Error()
	case len(models) == 0:
		return ""
	case models[0].Scaling == "":
		return fmt.Sprintf("workers: %d, set by hand", len(models[0].Workers))
	}
	return "workers of a replica: " + models[0].Scaling
}

// tellReplicas writes of each deployed model how many replicas it has and why, and what
// workers says of those; nil = nothing.
func tellReplicas(w *strings.Builder, e *pb.Endpoint, workers func(*pb.DeployedModel) string) {
	fmt.Fprintf(w, "endpoint %s (%s)\n", path.Base(e.GetName()), e.GetDisplayName())
	if len(e.GetDeployedModels()) == 0 {
		w.WriteString("no model is deployed to it\n")
		if alias := e.GetLabels()[serving.FollowLabel]; alias != "" {
			fmt.Fprintf(w, "it follows the alias %s: once a version is deployed to it, later ones take its place\n", alias)
		}
	}
	for _, d := range e.GetDeployedModels() {
		fmt.Fprintf(w, "deployed model %s (%s): %d%% of the traffic\n", d.GetId(), d.GetDisplayName(), e.GetTrafficSplit()[d.GetId()])
		message := d.GetStatus().GetMessage()
		if message == "" {
			message = "it takes no requests yet; `tategu logs " + path.Base(e.GetName()) + "` shows what it says"
		}
		for line := range strings.SplitSeq(strings.ReplaceAll(message, ". ", ".\n"), "\n") {
			w.WriteString("  " + line + "\n")
		}
		if workers == nil {
			continue
		}
		if said := workers(d); said != "" {
			w.WriteString("  " + said + "\n")
		}
	}
}
