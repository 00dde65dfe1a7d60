package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/resource"
	"tategu/internal/transfer"
)

// lister prints objects and folders.
type lister struct {
	long, recursive, versions bool
	client                    *transfer.Client
	out                       io.Writer
	objects, bytes            int64
}

func lsCommand() *cobra.Command {
	var l lister
	var project string
	cmd := &cobra.Command{
		Use: "ls [gs://BUCKET[/NAME]...]", Short: "List buckets, folders and objects",
		Long: `ls without a URL lists the buckets of the project. Names that share a folder are shown as
the folder; -r shows all that is below. * and ** are wildcards.`,
		Example: "  tategu ls\n  tategu ls -l gs://models/v1/\n  tategu ls -r --versions gs://models",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := connect(cmd)
			if err != nil {
				return err
			}
			if project == "" {
				project = c.project
			}
			l.client, l.out = &transfer.Client{Base: c.base, HTTP: c.http, Token: c.token}, cmd.OutOrStdout()
			if len(args) == 0 {
				return l.buckets(cmd, project)
			}
			for _, arg := range args {
				u, err := transfer.ParseURL(arg)
				if err == nil {
					err = l.list(cmd, u)
				}
				if err != nil {
					return err
				}
			}
			if l.long {
				_, err = fmt.Fprintf(l.out, "TOTAL: %s, %s\n", counted(l.objects, "object"), transfer.Size(l.bytes))
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&l.long, "long", "l", false, "sizes, times and a total")
	cmd.Flags().BoolVarP(&l.recursive, "recursive", "r", false, "all that is below")
	cmd.Flags().BoolVarP(&l.versions, "versions", "a", false, "noncurrent generations too")
	cmd.Flags().StringVar(&project, "project", "", "project whose buckets are listed (default: the server's)")
	return cmd
}

func (l *lister) buckets(cmd *cobra.Command, project string) error {
	buckets, err := l.client.Buckets(cmd.Context(), project)
	if err != nil {
		return err
	}
	if len(buckets) == 0 {
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "no buckets in project %s\n", project)
		return err
	}
	for _, b := range buckets {
		line := transfer.URL{Bucket: b.Name}.String()
		if l.long {
			line = b.TimeCreated.Local().Format(time.DateTime) + "  " + line
		}
		if _, err := fmt.Fprintln(l.out, line); err != nil {
			return err
		}
	}
	return nil
}

// list shows a folder's content, one object, or what a pattern selects.
func (l *lister) list(cmd *cobra.Command, u transfer.URL) error {
	q := transfer.Query{Bucket: u.Bucket, Prefix: u.Name, Delimiter: "/", Versions: l.versions}
	selected := strings.ContainsAny(u.Name, "*?[") || u.Generation != 0
	if !selected && u.Name != "" && !strings.HasSuffix(u.Name, "/") {
		switch _, err := l.client.Stat(cmd.Context(), u); {
		case err == nil:
			selected = true
		case !resource.IsNotFound(err):
			return err
		}
		q.Prefix += "/"
	}
	if selected {
		for o, err := range l.client.Select(cmd.Context(), u, false, l.versions) {
			if err != nil {
				return err
			}
			if err := l.print(u.Bucket, transfer.Entry{Object: o.Object}); err != nil {
				return err
			}
		}
		return nil
	}
	if l.recursive {
		q.Delimiter = ""
	}
	found := false
	for e, err := range l.client.List(cmd.Context(), q) {
		if err != nil {
			return l.why(cmd, u, err)
		}
		found = true
		if err := l.print(u.Bucket, e); err != nil {
			return err
		}
	}
	if !found && u.Name != "" {
		return l.why(cmd, u, nil)
	}
	return nil
}

// why gives the error of a name under which nothing is.
func (l *lister) why(cmd *cobra.Command, u transfer.URL, err error) error {
	for _, serr := range l.client.Select(cmd.Context(), u, false, false) {
		if serr != nil {
			return serr
		}
	}
	return errors.Join(err, resource.NotFound(u.String()))
}

func (l *lister) print(bucket string, e transfer.Entry) error {
	u := transfer.URL{Bucket: bucket, Name: e.Name + e.Prefix} // one of the two
	if l.versions && e.Prefix == "" {
		u.Generation = e.Generation
	}
	line := u.String()
	if l.long {
		size, at := "", strings.Repeat(" ", len(time.DateTime))
		if e.Prefix == "" {
			size, at = transfer.Size(e.Size), e.Updated.Local().Format(time.DateTime)
			l.objects, l.bytes = l.objects+1, l.bytes+e.Size
		}
		line = fmt.Sprintf("%10s  %s  %s", size, at, line)
	}
	if !e.TimeDeleted.IsZero() {
		line += "  noncurrent"
	}
	_, err := fmt.Fprintln(l.out, line)
	return err
}

func counted(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.FormatInt(n, 10) + " " + what + "s"
}
