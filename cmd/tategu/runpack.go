package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"tategu/internal/image"
	"tategu/internal/imaging"
	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// pack gives the image of the job: the one that was named, or one made of it and
// the folder, which is sent to the project's repository for such.
func (r *runner) pack(o order, project string) (string, error) {
	packages, err := o.packages()
	if err != nil {
		return "", err
	}
	if o.folder == "" && len(packages) == 0 && o.image != "" {
		return o.image, nil
	}
	images, err := images(r.cmd)
	if err != nil {
		return "", err
	}
	var uri string
	err = inTemp(func(dir string) error {
		recipe, source, err := r.recipe(o, dir)
		if err != nil {
			return err
		}
		recipe.Packages = packages
		base := imaging.Recipe{Base: o.image}
		if !o.files {
			_, err := images.Find(r.cmd.Context(), o.image)
			// An image that is not kept may still have a rule of the server.
			if o.files = resource.IsNotFound(err); err != nil && !o.files {
				return err
			}
		}
		if o.files {
			recipe.On, base.Base = or(o.image, runtime.BaseMachine), ""
		} else {
			recipe.Into, recipe.Workdir, recipe.Shared = imaging.DefaultInto, imaging.DefaultInto, true
		}
		on, err := baseImage(r.cmd, images, base, dir)
		if err != nil {
			return err
		}
		img, err := imaging.Build(on, source, recipe, dir)
		if err != nil {
			return err
		}
		picture := imaging.Picture{Image: img}
		if r.as != "" {
			uri, err = r.named(images, picture)
			return err
		}
		uri, err = send(r.cmd.Context(), images, project, picture)
		return err
	})
	return uri, err
}

// recipe packs the folder; without one the image is of packages alone.
func (r *runner) recipe(o order, dir string) (imaging.Recipe, string, error) {
	if o.folder == "" {
		empty := filepath.Join(dir, "empty")
		return imaging.Recipe{}, empty, os.Mkdir(empty, 0o700)
	}
	limit, err := size("folder-limit", o.folderLimit)
	if err != nil {
		return imaging.Recipe{}, "", err
	}
	folder, err := imaging.OpenFolder(o.folder, limit)
	if err != nil {
		return imaging.Recipe{}, "", err
	}
	r.say("folder %s: %s", o.folder, folder)
	if _, err := os.Stat(filepath.Join(o.folder, "requirements.txt")); err == nil && len(o.requirement) == 0 && o.image != "" && o.files {
		r.say("requirements.txt is not installed unless you say so: --requirements requirements.txt")
	}
	return folder.Recipe(), o.folder, nil
}

// send puts a picture without a tag: its digest is its name. What the server has of
// it is not sent again.
func send(ctx context.Context, c *imaging.Client, project string, p imaging.Picture) (string, error) {
	digest, err := p.Digest()
	if err != nil {
		return "", err
	}
	repo := project + "/" + image.PackedName
	if image.CheckName(repo) != nil {
		repo = image.PackedName // the server's own project; this one's name is none of a repository
	}
	to, err := c.Digest(repo, digest.String())
	if err != nil {
		return "", err
	}
	if err := c.Put(ctx, to, p); err != nil {
		return "", fmt.Errorf("send the folder: %w", err)
	}
	return repo + "@" + digest.String(), nil
}
