package imaging

import (
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Scratch is the base of an image that has nothing but its own layer.
const Scratch = "scratch"

// Recipe says how an image is built: it is the form of image.yaml too. Empty fields
// leave what the base says.
type Recipe struct {
	Name       string            `yaml:"name"`     // NAME[:TAG] of the image
	Base       string            `yaml:"base"`     // an image, a tar, scratch, or machine; see Files
	Python     string            `yaml:"python"`   // version of the Python environment that the files run in, instead of a base
	Packages   []string          `yaml:"packages"` // pip requirements of that environment
	Platform   string            `yaml:"platform"` // of the base; OS/ARCH
	Into       string            `yaml:"into"`     // where the files go; default /app
	Entrypoint []string          `yaml:"entrypoint"`
	Cmd        []string          `yaml:"cmd"`
	Env        map[string]string `yaml:"env"`
	Workdir    string            `yaml:"workdir"`
	User       string            `yaml:"user"`
	Ports      []int             `yaml:"ports"`
	Labels     map[string]string `yaml:"labels"`
	Exclude    []string          `yaml:"exclude"` // globs of paths, or of names, that stay out

	// On is Python or machine spelled as an image, for programs: "python:3.12".
	On string `yaml:"-"`
	// Shared lets every user write the files and their folders: a working directory is
	// the program's own, whoever the image's user is.
	Shared bool `yaml:"-"`
	// Skip, unless nil, says alone what stays out.
	Skip func(name string, dir bool) bool `yaml:"-"`
}

// Files gives the base of an image that has files alone, for the working directory
// of a program in no container: runtime.BaseMachine, or a Python image, which stands
// for an environment. "" = it is an image with a system.
func (r Recipe) Files() (string, error) {
	switch {
	case r.Python != "" && r.Base != "":
		return "", resource.Invalid("python", "an image has a base or a Python version, and not both").WithHint("leave out base: %s for an environment of Python %s", r.Base, r.Python)
	case r.On != "":
		return r.On, nil
	case r.Python != "":
		if !regexp.MustCompile(`^3(\.\d{1,3}){0,2}$`).MatchString(r.Python) {
			return "", resource.Invalid("python", "%.40q is not a version of Python", r.Python).WithHint("write it as 3.12")
		}
		return "python:" + r.Python, nil
	case len(r.Packages) > 0:
		return "", resource.Invalid("packages", "packages are installed into a Python environment, and the image has none").
			WithHint("give the version of Python (python: \"3.12\"); packages of a container belong into its base")
	case r.Base == runtime.BaseMachine:
		return runtime.BaseMachine, nil
	}
	return "", nil
}

// DefaultInto is where files go in the image.
const DefaultInto = "/app"

// Build adds one layer of the files at source, a directory or one file, to base. The
// same files and recipe give the same image, byte for byte: times are left out,
// owners are 0, and names are in order. dir keeps the layer while the image is used.
func Build(base v1.Image, source string, r Recipe, dir string) (v1.Image, error) {
	on, err := r.Files()
	if err != nil {
		return nil, err
	}
	if on != "" {
		if r.Into != "" {
			return nil, resource.Invalid("into", "files without a system stand in the working directory, and not in %s", r.Into)
		}
		r.Into, base = "/", scratch(v1.Platform{}) // they run wherever their programs do
	} else if base == nil {
		base = scratch(platform(r.Platform))
	}
	mediaType, err := base.MediaType()
	if err != nil {
		return nil, err
	}
	l, err := packLayer(source, r, dir)
	if err != nil {
		return nil, err
	}
	l.mediaType = layerType(mediaType)
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "tategu image build", Created: v1.Time{Time: epoch()}}})
	if err != nil {
		return nil, fmt.Errorf("add the layer: %w", err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("read the base's config: %w", err)
	}
	config = config.DeepCopy()
	config.Created = v1.Time{Time: epoch()}
	if err := r.apply(&config.Config, source); err != nil {
		return nil, err
	}
	if on != "" {
		if err := r.applyFiles(&config.Config, on); err != nil {
			return nil, err
		}
	}
	return mutate.ConfigFile(img, config)
}

func epoch() time.Time { return time.Unix(0, 0).UTC() }

func scratch(p v1.Platform) v1.Image {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	config := &v1.ConfigFile{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, RootFS: v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{}}}
	with, err := mutate.ConfigFile(img, config)
	if err != nil {
		return img // it has no layer that could fail
	}
	return with
}

// applyFiles says who brings the system.
func (r Recipe) applyFiles(c *v1.Config, on string) error {
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.Labels[runtime.LabelBase], c.WorkingDir = on, ""
	if len(r.Packages) > 0 {
		text, err := json.Marshal(r.Packages)
		if err != nil {
			return err
		}
		c.Labels[runtime.LabelPackages] = string(text)
	}
	for i, word := range c.Entrypoint[:min(1, len(c.Entrypoint))] { // of a single file
		if name, ok := strings.CutPrefix(word, "/"); ok && !strings.Contains(name, "/") && len(r.Entrypoint) == 0 {
			c.Entrypoint[i] = "./" + name
		}
	}
	return nil
}

// apply sets what the recipe says. A single file is the entry point by itself.
func (r Recipe) apply(c *v1.Config, source string) error {
	info, err := os.Stat(source)
	if err != nil {
		return err
	}
	if len(r.Entrypoint) > 0 {
		c.Entrypoint, c.Cmd = r.Entrypoint, nil // as in Dockerfiles: the base's arguments were for its own
	} else if !info.IsDir() {
		c.Entrypoint, c.Cmd = []string{path.Join(r.into(), filepath.Base(source))}, nil
	}
	if len(r.Cmd) > 0 {
		c.Cmd = r.Cmd
	}
	for name, value := range sorted(r.Env) {
		c.Env = slices.DeleteFunc(c.Env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		c.Env = append(c.Env, name+"="+value)
	}
	if r.Workdir != "" {
		c.WorkingDir = r.Workdir
	} else if info.IsDir() && len(r.Entrypoint) > 0 {
		c.WorkingDir = r.into()
	}
	if r.User != "" {
		c.User = r.User
	}
	for _, port := range r.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		c.ExposedPorts[fmt.Sprintf("%d/tcp", port)] = struct{}{}
	}
	for name, value := range sorted(r.Labels) {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		c.Labels[name] = value
	}
	return nil
}

func sorted(m map[string]string) func(func(k, v string) bool) {
	return func(yield func(k, v string) bool) {
		keys := make([]string, 0, len(m))
		for k := range m {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if !yield(k, m[k]) {
				return
			}
		}
	}
}

func (r Recipe) into() string {
	if r.Into == "" {
		return DefaultInto
	}
	return path.Clean("/" + r.Into)
}

func emptyIndex() v1.ImageIndex { return empty.Index }
