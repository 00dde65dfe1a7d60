package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"text/tabwriter"
	"time"

	pb "cloud.google.com/go/aiplatform/apiv1beta1/aiplatformpb"
	"github.com/spf13/cobra"

	"tategu/internal/api/admin"
	"tategu/internal/resource"
	"tategu/internal/serving"
)

func shadowCommand() *cobra.Command {
	var to, of, sample string
	var stop bool
	cmd := &cobra.Command{
		Use: "shadow ENDPOINT [--to DEPLOYED_MODEL]", Short: "Send copies of an endpoint's requests to another model and compare the answers", Args: cobra.ExactArgs(1),
		Long: `shadow has a sample of the predictions of an ENDPOINT copied to a deployed model, of the same
endpoint (without traffic) or another one, and compares the answers: callers get neither its
answers nor its delays. Without --to it shows what came of it: how many answers are equal,
which fields differ, and how long both take. Numbers are equal within 1e-6 of their size.`,
		Example: "  tategu shadow fraud --to 4712 --sample 10%\n  tategu shadow fraud\n  tategu shadow fraud --stop",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, e, err := connectTo(cmd, args[0])
			if err != nil {
				return err
			}
			if to == "" && !stop {
				return tellShadow(cmd, c, e)
			}
			labels := map[string]string{}
			for name, value := range e.GetLabels() {
				if !strings.HasPrefix(name, serving.ShadowLabel) {
					labels[name] = value
				}
			}
			if !stop {
				if to, err = deployedTo(cmd, c, e, of, to); err != nil {
					return err
				}
				labels[serving.ShadowLabel], labels[serving.ShadowPercentLabel] = to, strings.TrimSuffix(sample, "%")
				if of != "" {
					labels[serving.ShadowEndpointLabel] = of
				}
			}
			if err := c.patchEndpoint(cmd.Context(), &pb.Endpoint{Name: e.GetName(), Labels: labels, Etag: e.GetEtag()}, "labels"); err != nil {
				return err
			}
			if stop {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "no copies of %s any more\n", path.Base(e.GetName()))
			} else {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "deployed model %s gets copies; `tategu shadow %s` compares the answers\n", to, args[0])
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "deployed model that gets the copies, by its id or display name")
	f.StringVar(&of, "of", "", "id of the endpoint that it is deployed to (default: the same)")
	f.StringVar(&sample, "sample", "100%", "how many of the predictions")
	f.BoolVar(&stop, "stop", false, "send no more copies")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.ValidArgsFunction = completeEndpoints
	_ = cmd.RegisterFlagCompletionFunc("to", completeDeployed) // fails only for an unknown flag
	return cmd
}

// deployedTo finds the id of a deployed model, by its id or display name, on the
// endpoint or on the one with the id of.
func deployedTo(cmd *cobra.Command, c *client, e *pb.Endpoint, of, name string) (string, error) {
	if of != "" {
		location, _, _ := strings.Cut(e.GetName(), "/endpoints/")
		other, err := c.fetchEndpoint(cmd.Context(), location+"/endpoints/"+of)
		if err != nil {
			return "", err
		}
		if other == nil {
			return "", resource.Errorf(5, "no endpoint of %s has the id %q", location, of).WithHint("`tategu status` lists what there is")
		}
		e = other
	}
	var found, there []string
	for _, d := range e.GetDeployedModels() {
		if d.GetId() == name {
			return name, nil
		}
		if d.GetDisplayName() == name {
			found = append(found, d.GetId())
		}
		there = append(there, fmt.Sprintf("%s (%s)", d.GetId(), d.GetDisplayName()))
	}
	switch len(found) {
	case 0:
		return "", resource.Errorf(5, "no deployed model of endpoint %s is called %q", path.Base(e.GetName()), name).WithHint("it has %s", or(strings.Join(there, ", "), "none"))
	case 1:
		return found[0], nil
	}
	return "", resource.Invalid("to", "%d deployed models of endpoint %s are called %q", len(found), path.Base(e.GetName()), name).WithHint("name one by its id: %s", strings.Join(found, ", "))
}

func tellShadow(cmd *cobra.Command, c *client, e *pb.Endpoint) error {
	var r serving.ShadowReport
	if err := c.call(cmd.Context(), http.MethodGet, admin.ShadowPath+"?endpoint="+url.QueryEscape(e.GetName()), nil, &r); err != nil {
		return err
	}
	return printShadow(cmd.OutOrStdout(), path.Base(e.GetName()), r)
}

func printShadow(out io.Writer, endpoint string, r serving.ShadowReport) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) } // Flush tells
	line("endpoint %s, and deployed model %s as its shadow since %s", endpoint, path.Base(r.Model), r.Since.Local().Format(time.DateTime))
	line("%d compared: %d equal, %d different; %d not answered by the shadow, %d copies left out", r.Requests, r.Equal, r.Different, r.Failed, r.Dropped)
	if r.Reason != "" {
		line("not answered, the last time: %s", r.Reason)
	}
	if r.Requests > 0 {
		_, ours := r.Ours.Quantile(0.5)
		_, theirs := r.Theirs.Quantile(0.5)
		_, ours99 := r.Ours.Quantile(0.99)
		_, theirs99 := r.Theirs.Quantile(0.99)
		const fine = 10 * time.Microsecond
		line("\t\tENDPOINT\tSHADOW")
		line("time\tp50\t%v\t%v", ours.Round(fine), theirs.Round(fine))
		line("\tp99\t%v\t%v", ours99.Round(fine), theirs99.Round(fine))
	}
	for _, f := range r.Fields {
		line("%s\t%d\t%s\t%s", f.Path, f.Count, cmp.Or(f.Ours, "(absent)"), cmp.Or(f.Theirs, "(absent)"))
	}
	return w.Flush()
}
