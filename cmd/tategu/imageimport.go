package main

import (
	"github.com/spf13/cobra"

	"tategu/internal/imaging"
	"tategu/internal/resource"
)

func imageImportCommand() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use: "import FILE|DIRECTORY", Short: "Bring images from a file", Args: cobra.ExactArgs(1),
		Long: `import brings the images of a tar that docker save wrote, of an OCI layout's directory or of
its tar (plain or gzipped) to the server. They keep their names unless --name gives one.`,
		Example: "  docker save app:v1 > app.tar && tategu image import app.tar\n  tategu image import layout/ --name team/app:v2",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := images(cmd)
			if err != nil {
				return err
			}
			return inTemp(func(dir string) error {
				pictures, err := imaging.Read(args[0], dir)
				if err != nil {
					return err
				}
				if as != "" && len(pictures) > 1 {
					return resource.Invalid("name", "%s has %d images, and --name names one", args[0], len(pictures))
				}
				for _, p := range pictures {
					if as != "" {
						p.Name = as
					}
					if p.Name == "" {
						return resource.Invalid("name", "the image in %s has no name", args[0]).WithHint("give it one with --name NAME:TAG")
					}
					if err := put(cmd.Context(), cmd, c, p.Name, p); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	cmd.Flags().StringVar(&as, "name", "", "NAME[:TAG] of the image")
	return cmd
}
