package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

func imageInspectCommand() *cobra.Command {
	return &cobra.Command{
		Use: "inspect IMAGE", Short: "Show the manifest and config of an image", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			ref, err := c.Find(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			d, err := c.Get(cmd.Context(), ref)
			if err != nil {
				return err
			}
			shown := map[string]any{"digest": d.Digest.String(), "mediaType": d.MediaType, "manifest": json.RawMessage(d.Manifest)}
			if d.MediaType.IsImage() {
				img, err := d.Image()
				if err != nil {
					return err
				}
				raw, err := img.RawConfigFile()
				if err != nil {
					return err
				}
				if json.Valid(raw) {
					shown["config"] = json.RawMessage(raw)
				}
			}
			out := json.NewEncoder(cmd.OutOrStdout())
			out.SetIndent("", "  ")
			return out.Encode(shown)
		},
	}
}
