package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"tategu/internal/imaging"
	"tategu/internal/resource"
)

func imageExportCommand() *cobra.Command {
	var out, layout string
	cmd := &cobra.Command{
		Use: "export IMAGE", Short: "Write an image to a file", Args: cobra.ExactArgs(1), ValidArgsFunction: completeImages,
		Long: `export writes an image as a tar for docker load, or with --layout into the directory of an OCI
layout, as it is and with all its platforms.`,
		Example: "  tategu image export team/app:v1 -o app.tar",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if (out == "") == (layout == "") {
				return resource.Invalid("output", "export writes either to a file, with -o, or to a layout, with --layout")
			}
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
			nameOf := ref.Context().RepositoryStr() + ":" + ref.Identifier()
			if layout != "" {
				p := imaging.Picture{}
				if d.MediaType.IsIndex() {
					p.Index, err = d.ImageIndex()
				} else {
					p.Image, err = d.Image()
				}
				if err != nil {
					return err
				}
				return imaging.WriteLayout(layout, nameOf, p)
			}
			img, err := d.Image()
			if err != nil {
				return err
			}
			f, err := os.Create(out + ".part")
			if err != nil {
				return err
			}
			err = imaging.WriteDocker(f, nameOf, img)
			if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
				return errors.Join(err, os.Remove(f.Name()))
			}
			return os.Rename(f.Name(), out)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "the file to write")
	cmd.Flags().StringVar(&layout, "layout", "", "the directory of an OCI layout to write into")
	return cmd
}
