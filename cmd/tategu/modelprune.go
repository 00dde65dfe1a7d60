package main

import (
	"fmt"
	"path"
	"time"

	"github.com/spf13/cobra"

	"tategu/internal/modelcache"
	"tategu/internal/transfer"
)

func modelPruneCommand() *cobra.Command {
	var age time.Duration
	var rule modelcache.Rule
	var asJSON bool
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove models from the cache of this machine", Args: cobra.NoArgs,
		Long: `prune removes versions that were not pulled or followed for so long from the cache of this machine,
files that no version has, and what killed pulls left. What a running pull --watch or model serve
gave out stays.`,
		Example: "  tategu model prune --older-than 168h --keep 2\n  tategu model prune --dry-run --older-than 0s",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cache, err := modelCache(cmd)
			if err != nil {
				return err
			}
			rule.Before = time.Now().Add(-age)
			done, err := cache.Prune(rule)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd, done)
			}
			return printPruned(cmd, done, rule.DryRun)
		},
	}
	cmd.Flags().DurationVar(&age, "older-than", 30*24*time.Hour, "leave what was used since")
	cmd.Flags().IntVar(&rule.Keep, "keep", 0, "leave so many that were used last")
	cmd.Flags().BoolVar(&rule.Damaged, "damaged", false, "only what was changed and cannot be used")
	cmd.Flags().BoolVar(&rule.DryRun, "dry-run", false, "only say what would be removed")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func printPruned(cmd *cobra.Command, done modelcache.Pruned, dry bool) error {
	verb, freed := "removed", "freed"
	if dry {
		verb, freed = "would remove", "would free"
	}
	out := cmd.OutOrStdout()
	for _, k := range done.Models {
		if _, err := fmt.Fprintf(out, "%s %s@%s %s\n", verb, path.Base(or(k.Model, "unknown")), or(k.Version, "?"), short(k.Digest)); err != nil {
			return err
		}
	}
	for _, k := range done.Busy {
		if _, err := fmt.Fprintf(out, "in use: %s@%s %s\n", path.Base(k.Model), k.Version, short(k.Digest)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%s, %s %s\n", counted(int64(len(done.Models)), "model"), freed, transfer.Size(done.Bytes))
	return err
}
