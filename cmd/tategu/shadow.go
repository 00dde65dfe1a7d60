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
				labels[serving.ShadowLabel], labels[serving.ShadowPercentLabel] = to, strings.TrimSuffix(sample, "%")
				if of != "" {
					labels[serving.ShadowEndpointLabel] = of
				}
			}
			return c.patchEndpoint(cmd.Context(), &pb.Endpoint{Name: e.GetName(), Labels: labels, Etag: e.GetEtag()}, "labels")
		},
	}
	f := cmd.Flags()
	f.StringVar(&to, "to", "", "id of the deployed model that gets the copies")
	f.StringVar(&of, "of", "", "id of the endpoint that it is deployed to (default: the same)")
	f.StringVar(&sample, "sample", "100%", "how many of the predictions")
	f.BoolVar(&stop, "stop", false, "send no more copies")
	f.String("server", "", "HOST:PORT of a server that you logged in to")
	return cmd
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
