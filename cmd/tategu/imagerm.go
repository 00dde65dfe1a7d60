package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func imageTagCommand() *cobra.Command {
	return &cobra.Command{
		Use: "tag IMAGE NAME:TAG", Short: "Give an image another name", Args: cobra.ExactArgs(2), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			return c.Tag(cmd.Context(), args[0], args[1])
		},
	}
}

func imageRmCommand() *cobra.Command {
	return &cobra.Command{
		Use: "rm IMAGE...", Short: "Remove tags or images", Args: cobra.MinimumNArgs(1), ValidArgsFunction: completeImages,
		Long: `rm removes a tag (NAME:TAG), or an image with all its tags (NAME@sha256:...). Layers that nothing
needs any more are freed by tategu gc.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			for _, arg := range args {
				ref, err := c.Remove(cmd.Context(), arg)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(cmd.OutOrStdout(), "removed "+ref); err != nil {
					return err
				}
			}
			return nil
		},
	}
}
