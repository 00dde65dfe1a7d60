package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"tategu/internal/transfer"
)

// storageCommands are those that read and write gs:// URLs.
func storageCommands() []*cobra.Command {
	commands := []*cobra.Command{cpCommand(), mvCommand(), lsCommand(), catCommand(), rmCommand(), duCommand(), gcCommand()}
	for _, cmd := range commands {
		cmd.Flags().String("server", "", "HOST:PORT of a server that you logged in to")
		if cmd.Name() != "gc" {
			cmd.ValidArgsFunction = completeURLs
		}
	}
	return commands
}

// storage connects to the server's storage.
func storage(cmd *cobra.Command) (*transfer.Client, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	return &transfer.Client{Base: c.base, HTTP: c.http, Token: c.token}, nil
}

// completeURLs offers buckets, folders and objects; anything else is a path.
func completeURLs(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	if !strings.HasPrefix(typed, "gs:") && typed != "g" && typed != "gs" {
		return nil, cobra.ShellCompDirectiveDefault
	}
	c, err := connect(cmd)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	client := &transfer.Client{Base: c.base, HTTP: c.http, Token: c.token, Patience: time.Second}
	urls, err := client.Complete(cmd.Context(), c.project, typed)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return urls, cobra.ShellCompDirectiveNoSpace | cobra.ShellCompDirectiveNoFileComp
}

func cpCommand() *cobra.Command {
	cmd := copyCommand("cp", false)
	cmd.Short = "Copy between files and gs:// objects"
	cmd.Long = `cp copies files to objects, objects to files, and objects to objects; "-" is standard
input or output. Several sources, a directory that exists, a bucket and a name that ends
with a slash are folders: names are appended. * stands for a part of a name between
slashes, ** for any part, ? for one character; an object of exactly that name wins.

cp -r of a folder into such a destination appends the folder's own name; into any other
it makes the destination a copy of the folder.

Every byte is checked by CRC32C on both sides. A transfer goes on where it ended when a
connection breaks or the server restarts. A file is written under another name until it
is whole. What cannot be copied is named, the rest goes on, and the exit code is 1.`
	cmd.Example = `  tategu cp model.txt gs://models/v1/
  tategu cp -r gs://models/v1 ./v1
  tategu cp 'gs://logs/**/*.json' all/
  pg_dump app | tategu cp - gs://backup/app.sql`
	return cmd
}

func mvCommand() *cobra.Command {
	cmd := copyCommand("mv", true)
	cmd.Short = "Move between files and gs:// objects"
	cmd.Long = `mv is cp, and removes each source once its copy is whole. Directories stay, empty.`
	cmd.Example = "  tategu mv gs://models/new/model.txt gs://models/v2/model.txt"
	return cmd
}

func copyCommand(verb string, move bool) *cobra.Command {
	c := transfer.Copier{Move: move}
	var quiet bool
	cmd := &cobra.Command{
		Use: verb + " SOURCE... DESTINATION", Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := storage(cmd)
			if err != nil {
				return err
			}
			c.Client, c.Stdin, c.Stdout = client, cmd.InOrStdin(), cmd.OutOrStdout()
			return runCopy(cmd, &c, args[:len(args)-1], args[len(args)-1], quiet)
		},
	}
	cmd.Flags().BoolVarP(&c.Recursive, "recursive", "r", false, "all that is below a directory or folder")
	cmd.Flags().BoolVarP(&c.NoClobber, "no-clobber", "n", false, "leave what exists")
	cmd.Flags().BoolVar(&c.DryRun, "dry-run", false, "only say what would be copied")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "say nothing but errors")
	return cmd
}

// runCopy shows on stderr what goes on: a line that changes on a terminal, one
// line at the end elsewhere.
func runCopy(cmd *cobra.Command, c *transfer.Copier, sources []string, destination string, quiet bool) error {
	out := cmd.ErrOrStderr()
	c.Progress = transfer.NewProgress(time.Now())
	var mu sync.Mutex
	terminal := !quiet && !c.DryRun && isTerminal(out)
	say := func(line string) {
		mu.Lock()
		defer mu.Unlock()
		if terminal {
			line = "\r\x1b[K" + line
		}
		_, _ = fmt.Fprintln(out, line) // where to tell that stderr is gone?
	}
	c.Say = func(line string) {
		if !quiet {
			say(line)
		}
	}
	c.Fail = func(what string, err error) { say("tategu: " + what + ": " + err.Error()) }
	show := func() {}
	if terminal {
		ctx, stop := context.WithCancel(cmd.Context())
		var shown sync.WaitGroup
		shown.Go(func() { c.Progress.Show(ctx, out) })
		show = func() { stop(); shown.Wait() }
	}
	err := c.Copy(cmd.Context(), sources, destination)
	show()
	if !quiet && !c.DryRun && !errors.Is(err, context.Canceled) {
		say(c.Progress.Summary(time.Now()))
	}
	return err
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

func catCommand() *cobra.Command {
	return &cobra.Command{
		Use: "cat gs://BUCKET/NAME...", Short: "Print objects", Args: cobra.MinimumNArgs(1),
		Long: `cat prints objects one after the other, as they are stored. A wrong byte is an error at
the end of its object.`,
		Example: "  tategu cat gs://models/v1/metrics.json\n  tategu cat 'gs://batch/out/prediction.results-*' | jq .",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := storage(cmd)
			if err != nil {
				return err
			}
			for _, arg := range args {
				u, err := transfer.ParseURL(arg)
				if err != nil {
					return err
				}
				for o, err := range c.Select(cmd.Context(), u, false, false) {
					if err != nil {
						return err
					}
					if err := c.Download(cmd.Context(), o.Object, cmd.OutOrStdout(), nil); err != nil {
						return err
					}
				}
			}
			return nil
		},
	}
}

func rmCommand() *cobra.Command {
	var recursive, dry, versions bool
	cmd := &cobra.Command{
		Use: "rm gs://BUCKET/NAME...", Short: "Remove objects", Args: cobra.MinimumNArgs(1),
		Long: `rm removes objects and prints what it removed; it does not ask. A folder needs -r, one
generation is NAME#GENERATION as tategu ls --versions prints it. Buckets stay. In a bucket
that keeps versions, what is removed stays as a noncurrent generation unless --versions
is given.`,
		Example: "  tategu rm gs://models/v0/model.txt\n  tategu rm -r --dry-run gs://models/v0/",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := storage(cmd)
			if err != nil {
				return err
			}
			failed := 0
			for _, arg := range args {
				n, err := remove(cmd, c, arg, recursive, versions, dry)
				if err != nil {
					_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "tategu: "+arg+": "+err.Error()) // the exit code tells too
				}
				failed += n
			}
			if failed > 0 {
				return fmt.Errorf("not everything was removed: %d failed", failed)
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "r", false, "all that is below a folder or in a bucket")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	cmd.Flags().BoolVarP(&versions, "versions", "a", false, "noncurrent generations too")
	return cmd
}

func remove(cmd *cobra.Command, c *transfer.Client, arg string, recursive, versions, dry bool) (failed int, err error) {
	u, err := transfer.ParseURL(arg)
	if err != nil {
		return 1, err
	}
	for o, err := range c.Select(cmd.Context(), u, recursive, versions) {
		if err != nil {
			return failed + 1, err
		}
		at, what := o.URL(), "removed "
		if versions || u.Generation != 0 {
			at.Generation = o.Generation
		}
		if dry {
			what = "would remove "
		} else if err := c.Remove(cmd.Context(), at, o.Generation); err != nil {
			failed++
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "tategu: "+at.String()+": "+err.Error()) // the exit code tells too
			continue
		}
		if _, err := fmt.Fprintln(cmd.OutOrStdout(), what+at.String()); err != nil {
			return failed, err
		}
	}
	return failed, nil
}
