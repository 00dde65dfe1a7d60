package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/modelcache"
	"tategu/internal/resource"
	"tategu/internal/transfer"
)

// Exit codes of pull besides 1, for scripts.
const (
	exitNoModel = 3 // the name stands for no version
	exitAway    = 4 // the server does not answer
)

// modelPull is one call of pull.
type modelPull struct {
	cmd      *cobra.Command
	loader   *modelcache.Loader
	interval time.Duration
	to       string
	json     bool
	quiet    bool
	watch    bool
	offline  bool
}

func modelPullCommand() *cobra.Command {
	var p modelPull
	cmd := &cobra.Command{
		Use: "pull MODEL[@ALIAS]", Short: "Bring the files of a model to this machine, and print where they are", Args: cobra.ExactArgs(1), ValidArgsFunction: completeModels,
		Long: `pull prints the directory with the files of the version that MODEL@ALIAS is now. Files come to the
cache of this machine, each content once; every byte is checked, the files are read-only, and the
directory is there whole or not at all. What is there already is not brought again, and pulls at
the same time share a download.

--watch goes on: it prints a new directory each time the alias has moved, once its files are here,
and keeps the last one while the server is away. --to DIR makes the files appear in DIR, replaced in
one step; DIR does not need the cache. --offline asks no server and gives what was pulled last.

Exit codes: 1 in general, 3 when there is no such model or version, 4 when the server does not
answer, 130 when interrupted.`,
		Example: `  tategu model pull ranker@champion
  serve-model --dir "$(tategu model pull ranker@champion)"
  tategu model pull ranker@champion --watch | while read -r dir; do reload "$dir"; done
  tategu model pull ranker@7 --to ./model`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			p.cmd = cmd
			if p.watch && p.offline {
				return resource.Invalid("offline", "--watch and --offline exclude each other")
			}
			if p.loader, err = modelLoader(cmd, p.interval); err != nil {
				return err
			}
			if p.watch {
				err = p.follow(args[0])
			} else {
				err = p.once(args[0])
			}
			return asPull(cmd, err)
		},
	}
	cmd.Flags().StringVar(&p.to, "to", "", "directory to put the files in, besides the cache")
	cmd.Flags().BoolVarP(&p.watch, "watch", "w", false, "go on, and print a new directory each time the alias moves")
	cmd.Flags().BoolVar(&p.offline, "offline", false, "give what was pulled last, without asking the server")
	cmd.Flags().BoolVar(&p.json, "json", false, "print version, aliases, digest and files as JSON, an object a line with --watch")
	cmd.Flags().BoolVarP(&p.quiet, "quiet", "q", false, "say nothing but errors")
	intervalFlag(cmd, &p.interval)
	return cmd
}

// asPull gives an error of pull its exit code.
func asPull(cmd *cobra.Command, err error) error {
	switch {
	case err == nil:
		return nil
	case cmd.Context().Err() != nil:
		return &exit{code: exitCancelled, err: errors.New("stopped; files that had come are kept, and the next pull goes on with them")}
	case resource.CodeOf(err) == 14:
		return &exit{code: exitAway, err: err}
	case resource.IsNotFound(err):
		return &exit{code: exitNoModel, err: err}
	}
	return err
}

func (p *modelPull) once(name string) (err error) {
	var local *modelcache.Local
	if p.offline {
		local, err = p.loader.LastKnown(p.cmd.Context(), name)
	} else {
		local, err = p.bring(name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, local.Close()) }()
	return p.give(local)
}

// bring pulls, and shows on stderr what goes on, as cp does.
func (p *modelPull) bring(name string) (*modelcache.Local, error) {
	out := p.cmd.ErrOrStderr()
	progress := transfer.NewProgress(time.Now())
	p.loader.Progress = progress
	ctx, stop := context.WithCancel(p.cmd.Context())
	var shown sync.WaitGroup
	if !p.quiet && isTerminal(out) {
		shown.Go(func() { progress.Show(ctx, out) })
	}
	local, err := p.loader.Pull(p.cmd.Context(), name)
	stop()
	shown.Wait()
	if err == nil && !p.quiet {
		p.say("version %s of %s: %s", local.ID, or(local.DisplayName, local.Model), progress.Summary(time.Now()))
	}
	return local, err
}

func (p *modelPull) say(format string, args ...any) {
	if !p.quiet {
		_, _ = fmt.Fprintf(p.cmd.ErrOrStderr(), format+"\n", args...) // where to tell that stderr is gone?
	}
}

// give puts the files where they are wanted and prints where they are.
func (p *modelPull) give(local *modelcache.Local) error {
	if p.to != "" {
		at, err := local.Place(p.to)
		if err != nil {
			return err
		}
		placed := *local
		placed.Path = at
		local = &placed
	}
	switch {
	case p.json && p.watch:
		return jsonLine(p.cmd, local)
	case p.json:
		return printJSON(p.cmd, local)
	}
	_, err := fmt.Fprintln(p.cmd.OutOrStdout(), local.Path)
	return err
}

// follow gives the version that the name is, and each that it becomes.
func (p *modelPull) follow(name string) error {
	var last *modelcache.Local
	away := false
	return p.loader.Follow(p.cmd.Context(), name, func(local *modelcache.Local, wrong error) error {
		if local == nil {
			return wrong
		}
		if wrong != nil && !away {
			p.say("tategu: %v; version %s stays until then", wrong, local.ID)
		}
		if wrong == nil && away {
			p.say("tategu: the server answers again")
		}
		away = wrong != nil
		if last != nil && last.Same(local) {
			return nil
		}
		last = local
		p.say("version %s of %s", local.ID, or(local.DisplayName, local.Model))
		return p.give(local)
	})
}
