package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"tategu/internal/resource"
	"tategu/internal/serving"
)

// rolloutFlags are the flags that become labels of the endpoint.
func rolloutFlags() map[string]string {
	return map[string]string{
		"max-errors": "-max-errors", "max-p99": "-max-p99", "max-slowdown": "-max-slowdown", "min-requests": "-min-requests", "step": "-steps", "every": "-interval",
	}
}

func rolloutCommand() *cobra.Command {
	var model, alias string
	var back, unfollow bool
	cmd := &cobra.Command{
		Use: "rollout ENDPOINT [--model MODEL --canary PERCENT | --follow MODEL@ALIAS]", Short: "Try a model on a share of an endpoint's traffic, or have an endpoint follow an alias", Args: cobra.ExactArgs(1),
		Long: `rollout deploys a MODEL (a name, an id or a display name, with @VERSION or @ALIAS) beside what an
ENDPOINT has and gives it a share of the traffic. It is taken back by itself, within moments, when
more of its requests fail, or take long, than of the others'. The rule stands in the endpoint's
labels (tategu-canary...), so that clients of the API can set it too, and it outlives the server.

With --follow the endpoint follows MODEL@ALIAS: each time the alias moves, the version that it says is
deployed with all that the one before has, gets its traffic without a failed request, and the one
before is undeployed. With --canary it is tried step by step first. A version that does not start or
is worse is taken down and not tried again until the alias moves; asking again tries it again.
--unfollow ends that; a roll-over that has begun is taken back.

Without --model and --follow it shows how the deployed models do.`,
		Example: "  tategu rollout fraud --model fraud-v4 --canary 5%\n" +
			"  tategu rollout fraud --model fraud@candidate --canary 5% --step 25%,50%,100% --every 10m --max-p99 250ms\n  tategu rollout fraud --back\n" +
			"  tategu rollout fraud --follow fraud@champion --canary 5% --step 25%,50% --every 10m\n  tategu rollout fraud --unfollow",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			if model == "" && alias == "" {
				if given := givenFlags(cmd, slices.Sorted(maps.Keys(rolloutFlags())), "canary"); given != "" {
					return resource.Invalid("model", "%s is of a model on trial, and none is named", given).WithHint("name it by --model, or follow an alias by --follow")
				}
			}
			switch {
			case alias != "":
				return followAlias(cmd, c, e, alias)
			case unfollow:
				return unfollowAlias(cmd, c, e)
			case back:
				return takeBack(cmd, c, e)
			case model != "":
				return tryModel(cmd, c, e, model)
			}
			var text strings.Builder
			tellReplicas(&text, e, nil)
			_, err = io.WriteString(cmd.OutOrStdout(), text.String())
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&model, "model", "", "model to deploy")
	f.String("canary", "5%", "its share of the traffic")
	f.StringSlice("step", nil, "shares that follow while it does well, such as 25%,50%,100%")
	f.Duration("every", 10*time.Minute, "how long each share is kept at least")
	f.String("max-errors", "1%", "so many more of its requests may fail than of the others'")
	f.String("max-p99", "", "99% of its requests must be answered within (default: --max-slowdown)")
	f.Float64("max-slowdown", 2, "its requests may take so many times the p99 of the others")
	f.Int("min-requests", 10, "requests that it must have had before a verdict, and at each step")
	f.StringVar(&alias, "follow", "", "MODEL@ALIAS to follow")
	f.BoolVar(&unfollow, "unfollow", false, "follow no alias any more")
	f.BoolVar(&back, "back", false, "give the canary's share back to the others now")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.ValidArgsFunction = completeEndpoints
	for _, flag := range []string{"model", "follow"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, completeModelFlag) // fails only for an unknown flag
	}
	cmd.MarkFlagsMutuallyExclusive("model", "follow", "unfollow", "back")
	return cmd
}

// givenFlags are those of the flags that were given, as they are typed.
func givenFlags(cmd *cobra.Command, names []string, more ...string) string {
	var given []string
	for _, name := range append(names, more...) {
		if cmd.Flag(name).Changed {
			given = append(given, "--"+name)
		}
	}
	return strings.Join(given, ", ")
}

// percent reads a share such as 5% or 5.
func percent(text string) (int32, error) {
	n, err := strconv.ParseInt(strings.TrimSuffix(text, "%"), 10, 32)
	if err != nil || n < 1 || n > 99 {
		return 0, resource.Invalid("canary", "the share %q is not a percentage from 1 to 99", text)
	}
	return int32(n), nil
}

// ruleLabels makes the labels of the flags that were given.
func ruleLabels(cmd *cobra.Command, labels map[string]string, id string) map[string]string {
	out := map[string]string{}
	for name, value := range labels {
		if !strings.HasPrefix(name, serving.CanaryLabel) {
			out[name] = value
		}
	}
	out[serving.CanaryLabel] = id
	for flag, suffix := range rolloutFlags() {
		f := cmd.Flag(flag)
		if !f.Changed {
			continue
		}
		value := strings.ReplaceAll(strings.Trim(f.Value.String(), "[]"), ",", "-")
		out[serving.CanaryLabel+suffix] = strings.ReplaceAll(value, "%", "")
	}
	return out
}

// tryModel deploys a model as the canary of an endpoint and waits for it.
func tryModel(cmd *cobra.Command, c *client, e *pb.Endpoint, model string) error {
	share, err := percent(cmd.Flag("canary").Value.String())
	if err != nil {
		return err
	}
	if labels := e.GetLabels(); labels[serving.FollowLabel] != "" && labels[serving.CanaryLabel] == serving.CanaryNewest {
		return resource.Errorf(9, "endpoint %s follows %s with canaries: it has one rule for them, which this one would replace", path.Base(e.GetName()), labels[serving.FollowLabel]).
			WithHint("move the alias to try a version, or run `tategu rollout %s --unfollow` first", path.Base(e.GetName()))
	}
	base := largest(e)
	if base == nil {
		return resource.Errorf(9, "endpoint %s has no deployed model with traffic: there is nothing to compare a canary with", e.GetName()).
			WithHint("deploy a model to it first")
	}
	if err := untried(e); err != nil {
		return err
	}
	name, err := c.findModel(cmd.Context(), e.GetName(), model)
	if err != nil {
		return err
	}
	id := resource.NewID()
	labels := ruleLabels(cmd, e.GetLabels(), id)
	if err := serving.CheckLabels(labels); err != nil {
		return err
	}
	if err := c.patchEndpoint(cmd.Context(), &pb.Endpoint{Name: e.GetName(), Labels: labels, Etag: e.GetEtag()}, "labels"); err != nil {
		return err
	}
	d := &pb.DeployedModel{Id: id, Model: name, ServiceAccount: base.GetServiceAccount(), PredictionResources: base.GetPredictionResources()}
	split := serving.Share(e.GetTrafficSplit(), id, share)
	split["0"] = share
	delete(split, id)
	if err := c.operate(cmd.Context(), http.MethodPost, "/v1beta1/"+e.GetName()+":deployModel", &pb.DeployModelRequest{DeployedModel: d, TrafficSplit: split}, nil); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "deployed model %s has %d%% of the traffic of %s; `tategu why %s` tells how it does\n", id, share, path.Base(e.GetName()), path.Base(e.GetName()))
	return err
}

// untried refuses an endpoint with a canary: its trial would end, and its share stay.
func untried(e *pb.Endpoint) error {
	id, _ := serving.Canary(e)
	if id == "" {
		return nil
	}
	return resource.Errorf(9, "deployed model %s of endpoint %s is on trial with %d%% of the traffic", id, path.Base(e.GetName()), e.GetTrafficSplit()[id]).
		WithHint("`tategu rollout %s --back` takes it back; an update of the endpoint's traffic_split keeps it", path.Base(e.GetName()))
}

// largest is the deployed model with the most traffic.
func largest(e *pb.Endpoint) (most *pb.DeployedModel) {
	for _, d := range e.GetDeployedModels() {
		if s := e.GetTrafficSplit()[d.GetId()]; s > 0 && (most == nil || s > e.GetTrafficSplit()[most.GetId()]) {
			most = d
		}
	}
	return most
}

// takeBack gives the share of the canary back to the others.
func takeBack(cmd *cobra.Command, c *client, e *pb.Endpoint) error {
	id, split := serving.Canary(e)
	if id == "" {
		return resource.Errorf(9, "endpoint %s has no canary that takes a share of the traffic", e.GetName()).
			WithHint("`tategu why %s` shows who has what", path.Base(e.GetName()))
	}
	if err := c.patchEndpoint(cmd.Context(), &pb.Endpoint{Name: e.GetName(), TrafficSplit: split, Etag: e.GetEtag()}, "traffic_split"); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "deployed model %s of %s has no traffic any more\n", id, path.Base(e.GetName()))
	return err
}

func (c *client) patchEndpoint(ctx context.Context, e *pb.Endpoint, mask string) error {
	body, err := protojson.Marshal(e)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodPatch, "/v1beta1/"+e.GetName()+"?updateMask="+url.QueryEscape(mask), json.RawMessage(body), nil)
}

// findModel gives the full name of a model of the endpoint's location, called by its
// name, id or display name, with @VERSION where that was given.
func (c *client) findModel(ctx context.Context, endpoint, text string) (string, error) {
	called, version, versioned := strings.Cut(text, "@")
	suffix := ""
	if versioned {
		suffix = "@" + version
	}
	if strings.Contains(called, "/") {
		return text, nil
	}
	location, _, _ := strings.Cut(endpoint, "/endpoints/")
	found := map[string]bool{}
	q := url.Values{"pageSize": {"1000"}}
	for {
		var page struct {
			Models []struct {
				Name, DisplayName string
			} `json:"models"`
			NextPageToken string `json:"nextPageToken"`
		}
		if err := c.call(ctx, http.MethodGet, "/v1beta1/"+location+"/models?"+q.Encode(), nil, &page); err != nil {
			return "", err
		}
		for _, m := range page.Models {
			if path.Base(m.Name) == called {
				return m.Name + suffix, nil
			}
			if m.DisplayName == called {
				found[m.Name] = true
			}
		}
		if page.NextPageToken == "" {
			break
		}
		q.Set("pageToken", page.NextPageToken)
	}
	switch len(found) {
	case 0:
		return "", resource.NotFound(location + "/models/" + called).WithHint("`tategu model ls` lists the models")
	case 1:
		for name := range found {
			return name + suffix, nil
		}
	}
	return "", resource.Invalid("model", "%d models are called %q", len(found), called).WithHint("name one by its id")
}
