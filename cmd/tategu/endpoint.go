package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"path"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
)

// connectTo connects to the server and finds the endpoint that a command is about.
func connectTo(cmd *cobra.Command, name string) (*client, *pb.Endpoint, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, nil, err
	}
	e, err := c.fetchEndpoint(cmd.Context(), name)
	if err == nil && e == nil {
		err = resource.Errorf(5, "no endpoint is called %q", name).WithHint("`tategu status` lists what there is")
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
