package image

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"tategu/internal/runtime"
)

// config is the part of an image's configuration that is read
// (image-spec, config.md).
type config struct {
	Platform
	Created time.Time `json:"created"`
	Config  struct {
		User         string              `json:"User"`
		ExposedPorts map[string]struct{} `json:"ExposedPorts"`
		Env          []string            `json:"Env"`
		Entrypoint   []string            `json:"Entrypoint"`
		Cmd          []string            `json:"Cmd"`
		WorkingDir   string              `json:"WorkingDir"`
		Labels       map[string]string   `json:"Labels"`
	} `json:"config"`
	packages []string // of the label
	RootFS   struct {
		Type    string   `json:"type"`
		DiffIDs []Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// parseConfig reads a configuration of at most MaxManifest bytes.
func parseConfig(data []byte) (config, error) {
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return c, Refuse(ErrManifestInvalid, "the image's config is not the JSON that it should be: %v", err)
	}
	if c.RootFS.Type != "" && c.RootFS.Type != "layers" {
		return c, Refuse(ErrUnsupported, "the image's root file system is of type %.40q and not layers", c.RootFS.Type)
	}
	if text := c.Config.Labels[runtime.LabelPackages]; text != "" {
		if err := json.Unmarshal([]byte(text), &c.packages); err != nil {
			return c, Refuse(ErrManifestInvalid, "the label %s of the image's config is not a JSON list of strings: %v", runtime.LabelPackages, err)
		}
	}
	for _, d := range c.RootFS.DiffIDs {
		if _, err := ParseDigest(string(d)); err != nil {
			return c, Refuse(ErrManifestInvalid, "the image's config has a layer %.150q", d)
		}
	}
	return c, nil
}

func (c config) process() runtime.ImageConfig {
	return runtime.ImageConfig{
		Env: c.Config.Env, User: c.Config.User, WorkingDir: c.Config.WorkingDir,
		Entrypoint: c.Config.Entrypoint, Cmd: c.Config.Cmd, Ports: slices.Sorted(maps.Keys(c.Config.ExposedPorts)),
		Base: c.Config.Labels[runtime.LabelBase], Packages: c.packages,
	}
}
