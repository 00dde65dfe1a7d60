package main

import (
	"fmt"
	"io"
	"path"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

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
	tellReplicas(&text, e)
	_, err = io.WriteString(cmd.OutOrStdout(), text.String())
	return err
}

// tellReplicas writes of each deployed model how many replicas it has and why.
func tellReplicas(w *strings.Builder, e *pb.Endpoint) {
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
	}
}
