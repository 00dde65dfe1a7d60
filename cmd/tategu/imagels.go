package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"tategu/internal/transfer"
)

func query(name, value string) string {
	if value == "" {
		return ""
	}
	return "?" + url.Values{name: {value}}.Encode()
}

func imageLsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "ls [REPOSITORY]", Short: "List images", Args: cobra.MaximumNArgs(1), ValidArgsFunction: completeImages,
		Long:    `ls lists the images of a repository and of those below it, or all. Sizes are as kept; layers that images share count for each.`,
		Example: "  tategu image ls\n  tategu image ls team",
		RunE: func(cmd *cobra.Command, args []string) error {
			answer, err := listImages(cmd, strings.Join(args, ""))
			if err != nil {
				return err
			}
			if asJSON {
				out := json.NewEncoder(cmd.OutOrStdout())
				out.SetIndent("", "  ")
				return out.Encode(answer.Images)
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			_, _ = fmt.Fprintln(table, "IMAGE\tDIGEST\tPLATFORM\tSIZE\tPUSHED") // a tabwriter reports at Flush
			for _, e := range answer.Images {
				var platforms []string
				for _, p := range e.Platforms {
					platforms = append(platforms, p.String())
				}
				what := strings.Join(platforms, ",")
				switch {
				case what == "" && (e.Artifact == string(types.OCIConfigJSON) || e.Artifact == string(types.DockerConfigJSON)):
					what = "any" // an image of files
				case what == "":
					what = e.Artifact
				}
				tags := e.Tags
				if len(tags) == 0 {
					tags = []string{"<none>"}
				}
				for _, tag := range tags {
					_, _ = fmt.Fprintf(table, "%s:%s\t%s\t%s\t%s\t%s\n", e.Repository, tag, short(string(e.Digest)), what, transfer.Size(e.Size), e.Pushed.Format(time.RFC3339))
				}
			}
			return table.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, with digests in full")
	return cmd
}

const shortDigest = len("sha256:") + 12

func short(digest string) string { return digest[:min(len(digest), shortDigest)] }
