package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"tategu/internal/imaging"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

func imageBuildCommand() *cobra.Command {
	var r imaging.Recipe
	var recipe string
	cmd := &cobra.Command{
		Use: "build DIRECTORY|FILE", Short: "Make an image of a directory or a program", Args: cobra.ExactArgs(1),
		Long: `build adds a directory or one built file to a base image, as one layer, and puts the result on
the server. There is no Dockerfile and no daemon; the same files give the same image. The
base is an image of the server, of a registry (it is pulled first), a tar, scratch, or machine:
an image of the last, and one with --python, has files alone, which become the working directory
of a program in no container, in a Python environment with the packages of --with. What is not given as a flag is read from --file, or from image.yaml in the directory:

  name: team/app:v1
  base: python:3.12-slim
  into: /app
  entrypoint: [python, main.py]
  env: {MODE: fast}
  exclude: ["*.pyc", data]`,
		Example: "  tategu image build ./bin/server -t team/server:v1\n  tategu image build . --base python:3.12-slim --entrypoint python --cmd main.py -t team/app",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := readRecipe(cmd, &r, recipe, args[0]); err != nil {
				return err
			}
			c, err := images(cmd)
			if err != nil {
				return err
			}
			return inTemp(func(dir string) error {
				base, err := baseImage(cmd, c, r, dir)
				if err != nil {
					return err
				}
				img, err := imaging.Build(base, args[0], r, dir)
				if err != nil {
					return err
				}
				return put(cmd.Context(), cmd, c, r.Name, imaging.Picture{Image: img})
			})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&recipe, "file", "f", "", "read what follows from this file (default: image.yaml in the directory, if there)")
	f.StringVarP(&r.Name, "tag", "t", "", "NAME[:TAG] of the image")
	f.StringVar(&r.Base, "base", "", "image to add to (default: scratch)")
	f.StringVar(&r.Python, "python", "", "version of Python: the files run in an environment of the server, not in a container")
	f.StringArrayVar(&r.Packages, "with", nil, "pip requirement of that environment (repeatable)")
	f.StringVar(&r.Platform, "platform", "", "OS/ARCH (default: Linux on this processor)")
	f.StringVar(&r.Into, "into", "", "directory in the image (default: /app)")
	f.StringSliceVar(&r.Entrypoint, "entrypoint", nil, "program and its first arguments (default: the file, or the base's)")
	f.StringSliceVar(&r.Cmd, "cmd", nil, "default arguments")
	f.StringToStringVarP(&r.Env, "env", "e", nil, "variables, NAME=VALUE")
	f.StringVar(&r.Workdir, "workdir", "", "working directory (default: that of the files when there is an entry point)")
	f.StringVar(&r.User, "user", "", "USER[:GROUP] to run as")
	f.IntSliceVar(&r.Ports, "port", nil, "ports that the program listens on")
	f.StringToStringVar(&r.Labels, "label", nil, "labels, NAME=VALUE")
	f.StringSliceVar(&r.Exclude, "exclude", nil, "globs of files that stay out")
	return cmd
}

// readRecipe reads the file below what flags have set.
func readRecipe(cmd *cobra.Command, r *imaging.Recipe, file, source string) error {
	named := file != ""
	if !named {
		file = filepath.Join(source, imaging.RecipeFile)
	}
	data, err := os.ReadFile(file)
	switch {
	case err == nil:
		flags := *r
		*r = imaging.Recipe{}
		if err := decodeStrict(data, r); err != nil {
			return resource.Invalid("file", "%s: %v", file, err).WithHint("`tategu image build --help` shows the keys")
		}
		merge(cmd, r, flags)
	case named || !errors.Is(err, fs.ErrNotExist) && !isNotDir(source):
		return fmt.Errorf("read recipe: %w", err)
	}
	if r.Name == "" {
		return resource.Invalid("tag", "the image has no name").WithHint("give it one with -t NAME:TAG")
	}
	return nil
}

func isNotDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && !info.IsDir()
}

func decodeStrict(data []byte, r *imaging.Recipe) error {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	return dec.Decode(r)
}

// merge lets flags win.
func merge(cmd *cobra.Command, r *imaging.Recipe, flags imaging.Recipe) {
	for name, set := range map[string]func(){
		"tag": func() { r.Name = flags.Name }, "base": func() { r.Base = flags.Base }, "platform": func() { r.Platform = flags.Platform },
		"python": func() { r.Python = flags.Python }, "with": func() { r.Packages = flags.Packages },
		"into": func() { r.Into = flags.Into }, "entrypoint": func() { r.Entrypoint = flags.Entrypoint }, "cmd": func() { r.Cmd = flags.Cmd },
		"env": func() { r.Env = flags.Env }, "workdir": func() { r.Workdir = flags.Workdir }, "user": func() { r.User = flags.User },
		"port": func() { r.Ports = flags.Ports }, "label": func() { r.Labels = flags.Labels }, "exclude": func() { r.Exclude = flags.Exclude },
	} {
		if cmd.Flags().Changed(name) {
			set()
		}
	}
}

// baseImage finds the base: a file, an image of the server, or one of a registry,
// which is pulled to the server so that its layers travel once.
func baseImage(cmd *cobra.Command, c *imaging.Client, r imaging.Recipe, dir string) (v1.Image, error) {
	if r.Base == "" || r.Base == imaging.Scratch || r.Base == runtime.BaseMachine {
		return nil, nil
	}
	if _, err := os.Stat(r.Base); err == nil {
		pictures, err := imaging.Read(r.Base, dir)
		if err != nil {
			return nil, err
		}
		if len(pictures) != 1 || pictures[0].Image == nil {
			return nil, resource.Invalid("base", "%s is not one image for one platform", r.Base).WithHint("import it, and name the image")
		}
		return pictures[0].Image, nil
	}
	ref, err := c.Find(cmd.Context(), r.Base)
	if resource.IsNotFound(err) {
		var l loginFlags
		from, perr := l.reference(r.Base)
		if perr != nil {
			return nil, perr
		}
		login, perr := l.login(cmd)
		if perr != nil {
			return nil, perr
		}
		p, perr := imaging.Fetch(cmd.Context(), from, r.Platform, false, login)
		if perr != nil {
			return nil, perr
		}
		if ref, err = c.Target(pulledName(from, r.Base)); err == nil {
			err = c.Put(cmd.Context(), ref, p)
		}
	}
	if err != nil {
		return nil, err
	}
	return c.Image(cmd.Context(), ref, r.Platform)
}
