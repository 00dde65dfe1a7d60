package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"tategu/internal/api/registry"
	"tategu/internal/imaging"
	"tategu/internal/transfer"
)

func imageCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "image", Short: "Build, move and list container images",
		Long: `image works on the images that the server keeps. They are pushed and pulled by docker and
crane too: the server is a registry.`,
	}
	cmd.PersistentFlags().String("server", "", "HOST:PORT of a server that you logged in to")
	cmd.AddCommand(imageLsCommand(), imageInspectCommand(), imageBuildCommand(), imageImportCommand(), imageExportCommand(),
		imagePullCommand(), imagePushCommand(), imageTagCommand(), imageRmCommand(), imageRunCommand())
	return cmd
}

// images connects to the server's registry.
func images(cmd *cobra.Command) (*imaging.Client, error) {
	c, err := connect(cmd)
	if err != nil {
		return nil, err
	}
	return &imaging.Client{Base: c.base, HTTP: c.http, Token: c.token, Progress: progress(cmd)}, nil
}

// progress shows a line that changes, on a terminal.
func progress(cmd *cobra.Command) func(done, total int64) {
	out := cmd.ErrOrStderr()
	if !isTerminal(out) {
		return nil
	}
	var last atomic.Int64
	return func(done, total int64) {
		if done < total && done-last.Load() < 1<<20 {
			return
		}
		last.Store(done)
		_, _ = fmt.Fprintf(out, "\r\x1b[K%s of %s", transfer.Size(done), transfer.Size(total)) // where to tell that stderr is gone?
		if done >= total {
			_, _ = fmt.Fprint(out, "\r\x1b[K")
		}
	}
}

// listImages asks for the images whose repository is, or is below, a name.
func listImages(cmd *cobra.Command, of string) (registry.ListResponse, error) {
	var answer registry.ListResponse
	c, err := connect(cmd)
	if err != nil {
		return answer, err
	}
	return answer, c.call(cmd.Context(), "GET", registry.ListPath+query("repository", of), nil, &answer)
}

// completeImages offers the images of the server.
func completeImages(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	answer, err := listImages(cmd, "")
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, e := range answer.Images {
		for _, tag := range e.Tags {
			if n := e.Repository + ":" + tag; strings.HasPrefix(n, typed) {
				names = append(names, n)
			}
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// inTemp runs fn with a directory that goes afterwards.
func inTemp(fn func(dir string) error) (err error) {
	dir, err := os.MkdirTemp("", "tategu-image-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	return fn(dir)
}

// put sends a picture to the server and says under which name and digest.
func put(ctx context.Context, cmd *cobra.Command, c *imaging.Client, as string, p imaging.Picture) error {
	to, err := c.Target(as)
	if err != nil {
		return err
	}
	if err := c.Put(ctx, to, p); err != nil {
		return err
	}
	return say(cmd, to, p)
}

func say(cmd *cobra.Command, to name.Reference, p imaging.Picture) error {
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s:%s@%s\n", to.Context().RepositoryStr(), to.Identifier(), digest)
	return err
}
