package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"path"
	"slices"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

func undeployCommand() *cobra.Command {
	var remove bool
	cmd := &cobra.Command{
		Use: "undeploy ENDPOINT [DEPLOYED_MODEL]", Short: "Take a model off an endpoint, or all of them, or the endpoint away", Args: cobra.RangeArgs(1, 2),
		Long: `undeploy takes a deployed model (its id or display name) off an endpoint; the others get its share of
the traffic. Requests that it has are answered first. Without DEPLOYED_MODEL all are taken off, and
with --delete the endpoint is deleted as well. Models stay registered, with their files.`,
		Example: "  tategu undeploy fraud 4712\n  tategu undeploy fraud --delete",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			if len(args) == 2 && remove {
				return resource.Invalid("delete", "--delete is of the endpoint with all that is deployed on it: name no deployed model")
			}
			if len(args) == 2 {
				return c.undeployOne(cmd, e.GetName(), args[1])
			}
			for _, d := range byTraffic(e) {
				if err := c.undeployOne(cmd, e.GetName(), d.GetId()); err != nil {
					return err
				}
			}
			if !remove {
				return nil
			}
			if err := c.operate(cmd.Context(), http.MethodDelete, "/v1beta1/"+e.GetName(), nil, nil); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "endpoint %s (%s) is deleted\n", e.GetDisplayName(), path.Base(e.GetName()))
			return err
		},
	}
	cmd.Flags().BoolVar(&remove, "delete", false, "delete the endpoint, too")
	cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return completeEndpoints(cmd, args, typed)
		}
		return completeDeployed(cmd, args, typed)
	}
	return cmd
}

// byTraffic has deployed models without traffic first: the last one may have all of it.
func byTraffic(e *pb.Endpoint) []*pb.DeployedModel {
	return slices.SortedStableFunc(slices.Values(e.GetDeployedModels()), func(a, b *pb.DeployedModel) int {
		return cmp.Compare(e.GetTrafficSplit()[a.GetId()], e.GetTrafficSplit()[b.GetId()])
	})
}

// undeployOne takes a model off an endpoint as it is now, and gives its traffic to the others.
func (c *client) undeployOne(cmd *cobra.Command, endpoint, text string) error {
	e, err := c.fetchEndpoint(cmd.Context(), endpoint)
	if err != nil {
		return err
	}
	if e == nil {
		return resource.NotFound(endpoint)
	}
	id, err := deployedTo(cmd, c, e, "", text)
	if err != nil {
		return err
	}
	var gone *pb.DeployedModel
	for _, d := range e.GetDeployedModels() {
		if d.GetId() == id {
			gone = d
		}
	}
	var split map[string]int32
	share := e.GetTrafficSplit()[id]
	if others := len(e.GetDeployedModels()) - 1; others > 0 && share > 0 {
		if share == 100 {
			return resource.Errorf(9, "deployed model %s has all the traffic of endpoint %s, and %d others have none", id, path.Base(endpoint), others).
				WithHint("undeploy the others first, or all with `tategu undeploy %s`", path.Base(endpoint))
		}
		split = serving.Share(e.GetTrafficSplit(), id, 0)
		delete(split, id)
	}
	if err := c.undeploy(cmd.Context(), endpoint, id, split); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "undeployed %s@%s (%s)\n", gone.GetDisplayName(), gone.GetModelVersionId(), id)
	return err
}

func (c *client) undeploy(ctx context.Context, endpoint, id string, split map[string]int32) error {
	return c.operate(ctx, http.MethodPost, "/v1beta1/"+endpoint+":undeployModel", &pb.UndeployModelRequest{DeployedModelId: id, TrafficSplit: split}, nil)
}
