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
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

// isMissing reports that the server knows nothing by the name.
func isMissing(err error) bool {
	e, ok := errors.AsType[*answerError](err)
	return ok && e.status == http.StatusNotFound
}

// connectTo connects to the server and finds the endpoint that a command is about.
func connectTo(cmd *cobra.Command, name string) (*client, *pb.Endpoint, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	e, err := c.fetchEndpoint(cmd.Context(), name)
	if err == nil && e == nil {
		err = resource.NotFound(name).WithHint("name an endpoint by its id or display name")
	}
	return c, e, err
}

// fetchEndpoint finds an endpoint by its name, id or display name; nil = there is
// none.
func (c *client) fetchEndpoint(ctx context.Context, name string) (*pb.Endpoint, error) {
	if n, err := resource.ParseName(name); err == nil {
		if n.Collection() != "endpoints" {
			return nil, nil
		}
		var text json.RawMessage
		if err := c.call(ctx, http.MethodGet, "/v1beta1/"+name, nil, &text); err != nil {
			if isMissing(err) {
				return nil, nil
			}
			return nil, err
		}
		return readEndpoint(text)
	}
	q := url.Values{"pageSize": {"1000"}}
	for {
		var page struct {
			Endpoints     []json.RawMessage `json:"endpoints"`
			NextPageToken string            `json:"nextPageToken"`
		}
		if err := c.call(ctx, http.MethodGet, "/v1beta1/projects/"+url.PathEscape(c.project)+"/locations/-/endpoints?"+q.Encode(), nil, &page); err != nil {
			return nil, err
		}
		for _, text := range page.Endpoints {
			e, err := readEndpoint(text)
			if err != nil {
				return nil, err
			}
			if path.Base(e.GetName()) == name || e.GetDisplayName() == name {
				return e, nil
			}
		}
		if page.NextPageToken == "" {
			return nil, nil
		}
		q.Set("pageToken", page.NextPageToken)
	}
}

func readEndpoint(text []byte) (*pb.Endpoint, error) {
	e := &pb.Endpoint{}
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, e); err != nil {
		return nil, fmt.Errorf("read an endpoint: %w", err)
	}
	return e, nil
}

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
