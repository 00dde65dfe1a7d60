package main

import (
	"github.com/spf13/cobra"

	"tategu/internal/app"
)

func compatCommand() *cobra.Command {
	return &cobra.Command{
		Use: "compat", Short: "Print which methods of the APIs are served (docs/compat.md)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return app.Compat(cmd.Context(), cmd.OutOrStdout()) },
	}
}
