package main

import (
	"fmt"
	"maps"
	"path"
	"strconv"
	"strings"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/modelcache"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

// followAlias sets the labels by which an endpoint follows an alias. Asking for what is
// asked for already tries a version again that did not take over.
func followAlias(cmd *cobra.Command, c *client, e *pb.Endpoint, text string) error {
	if err := modelcache.CheckName(text); err != nil {
		return err
	}
	name, err := c.findModel(cmd.Context(), e.GetName(), text)
	if err != nil {
		return err
	}
	model, alias, ok := strings.Cut(name, "@")
	if !ok {
		return resource.Invalid("follow", "%q has no alias", text).WithHint("write MODEL@ALIAS, such as %s@champion; MODEL@default follows the default version", text)
	}
	if !strings.HasPrefix(model, projectOf(e.GetName())) {
		return resource.Invalid("follow", "%s is in another project than %s", model, e.GetName())
	}
	labels, err := followLabels(cmd, e.GetLabels(), path.Base(model), alias)
	if err != nil {
		return err
	}
	version, err := (&models{client: c}).get(cmd.Context(), name)
	if resource.IsNotFound(err) {
		return resource.NotFound(text).WithHint("`tategu model show %s` lists versions and aliases", path.Base(model))
	}
	if err != nil {
		return err
	}
	if maps.Equal(labels, e.GetLabels()) {
		if err := c.relabel(cmd, e, withoutFollow(labels), e.GetEtag()); err != nil {
			return err
		}
		e.Etag = "" // it is another one now
	}
	if err := c.relabel(cmd, e, labels, e.GetEtag()); err != nil {
		return err
	}
	id := path.Base(e.GetName())
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "endpoint %s follows %s@%s, which is version %s now; `tategu why %s` tells how it does\n", id, path.Base(model), alias, version.VersionID, id)
	return err
}

// projectOf is the beginning of the names in the project of one.
func projectOf(name string) string {
	project, _, _ := strings.Cut(strings.TrimPrefix(name, "projects/"), "/")
	return "projects/" + project + "/"
}

// relabel sets the labels of an endpoint that was not changed since it had the etag; "" =
// in any case.
func (c *client) relabel(cmd *cobra.Command, e *pb.Endpoint, labels map[string]string, etag string) error {
	return c.patchEndpoint(cmd.Context(), &pb.Endpoint{Name: e.GetName(), Labels: labels, Etag: etag}, "labels")
}

// followLabels makes the labels of the flags that were given.
func followLabels(cmd *cobra.Command, labels map[string]string, model, alias string) (map[string]string, error) {
	out := withoutFollow(labels)
	out[serving.FollowLabel], out[serving.FollowModelLabel] = alias, model
	canary := cmd.Flag("canary").Changed || cmd.Flag("step").Changed
	if !canary {
		for _, flag := range []string{"max-errors", "max-p99", "max-slowdown", "min-requests", "every"} {
			if cmd.Flag(flag).Changed {
				return nil, resource.Invalid(flag, "--%s is about a canary, and none is asked for", flag).WithHint("give --canary, the share that a new version begins with")
			}
		}
		return out, serving.CheckLabels(out)
	}
	share, err := percent(cmd.Flag("canary").Value.String())
	if err != nil {
		return nil, err
	}
	out = ruleLabels(cmd, out, serving.CanaryNewest)
	steps := []string{strconv.Itoa(int(share))}
	if given := out[serving.CanaryLabel+"-steps"]; given != "" {
		steps = append(steps, strings.Split(given, "-")...)
	}
	if steps[len(steps)-1] != "100" {
		steps = append(steps, "100")
	}
	out[serving.CanaryLabel+"-steps"] = strings.Join(steps, "-")
	return out, serving.CheckLabels(out)
}

// withoutFollow gives labels without those of following and of its canaries. The rule of a
// canary by its id stays.
func withoutFollow(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	delete(out, serving.FollowLabel)
	delete(out, serving.FollowModelLabel)
	if out[serving.CanaryLabel] == serving.CanaryNewest && labels[serving.FollowLabel] != "" {
		maps.DeleteFunc(out, func(name, _ string) bool { return strings.HasPrefix(name, serving.CanaryLabel) })
	}
	return out
}

func unfollowAlias(cmd *cobra.Command, c *client, e *pb.Endpoint) error {
	id, alias := path.Base(e.GetName()), e.GetLabels()[serving.FollowLabel]
	if alias == "" {
		return resource.Errorf(9, "endpoint %s follows no alias", id).WithHint("`tategu rollout %s --follow MODEL@ALIAS` has it follow one", id)
	}
	if err := c.relabel(cmd, e, withoutFollow(e.GetLabels()), e.GetEtag()); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "endpoint %s does not follow %s any more: what it has stays\n", id, alias)
	return err
}
