package main

import (
	"fmt"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"tategu/internal/transfer"
)

func duCommand() *cobra.Command {
	var human bool
	var project string
	cmd := &cobra.Command{
		Use: "du [gs://BUCKET[/FOLDER]...]", Short: "Show what buckets and folders hold",
		Long: `du sums up the objects of every bucket, or of each folder directly below the given ones
and of the whole. Noncurrent generations, which buckets with versioning keep, are counted
apart.`,
		Example: "  tategu du -h\n  tategu du gs://models",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if project == "" {
				project = c.project
			}
			client := &transfer.Client{Base: c.base, HTTP: c.http, Token: c.token}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
			_, _ = fmt.Fprintln(table, "BYTES\tOBJECTS\tNONCURRENT BYTES\tNONCURRENT\t  NAME") // a tabwriter reports at Flush
			size := func(n int64) string {
				if human {
					return transfer.Size(n)
				}
				return strconv.FormatInt(n, 10)
			}
			show := func(u transfer.Usage) error {
				_, err := fmt.Fprintf(table, "%s\t%d\t%s\t%d\t  %s\n", size(u.Bytes), u.Objects, size(u.OldBytes), u.Old, u.URL)
				return err
			}
			if err := usage(cmd, client, project, args, show); err != nil {
				return err
			}
			return table.Flush()
		},
	}
	cmd.Flags().Bool("help", false, "help for du") // -h is for people's sizes, as in du(1)
	cmd.Flags().BoolVarP(&human, "human-readable", "h", false, "sizes as 1.5 MB")
	cmd.Flags().StringVar(&project, "project", "", "project whose buckets are shown (default: the server's)")
	return cmd
}

func usage(cmd *cobra.Command, c *transfer.Client, project string, args []string, show func(transfer.Usage) error) error {
	for _, arg := range args {
		u, err := transfer.ParseURL(arg)
		if err != nil {
			return err
		}
		if err := c.Usage(cmd.Context(), u, show); err != nil {
			return err
		}
	}
	if len(args) > 0 {
		return nil
	}
	buckets, err := c.Buckets(cmd.Context(), project)
	if err != nil {
		return err
	}
	for _, b := range buckets {
		var total transfer.Usage
		err := c.Usage(cmd.Context(), transfer.URL{Bucket: b.Name}, func(u transfer.Usage) error { total = u; return nil })
		if err == nil {
			err = show(total)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
