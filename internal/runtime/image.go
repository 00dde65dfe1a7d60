package runtime

import (
	"context"
	"io"
)

// Images finds container images for runtimes; the image mechanism provides it
// (ports do not import each other).
type Images interface {
	// Image gives the image that a reference stands for, as it is kept on this
	// machine; NotFound when it is not, with the command that would bring it.
	Image(ctx context.Context, reference string) (Image, error)
}

// Image is one image for this machine's system: what to run and of what its file
// system is made.
type Image struct {
	Reference string // as it was asked for, with registry and tag
	Digest    string // of the manifest, sha256:HEX: the same digest is the same image
	Config    ImageConfig
	Layers    []Layer // the lowest first
}

// ImageConfig is what an image says of its process
// (github.com/opencontainers/image-spec/blob/main/config.md).
type ImageConfig struct {
	Env        []string // NAME=value
	User       string   // USER[:GROUP], names or numbers; "" = root
	WorkingDir string
	Entrypoint []string
	Cmd        []string
	Ports      []string // "8080/tcp"

	// Base says who brings the system, for an image that has files alone: BaseMachine,
	// or a Python image such as "python:3.11", whose environment then has Packages
	// too. "" = the image has all that its program needs, and runs in a container.
	Base     string
	Packages []string // pip requirements, as of Python.Packages
}

// BaseMachine is the base of files whose programs are the machine's own, or theirs.
const BaseMachine = "machine"

// Labels of an image's config that say Base, and Packages as a JSON list of strings.
const (
	LabelBase     = "tategu.base"
	LabelPackages = "tategu.packages"
)

// Layer is a change of a file system.
type Layer struct {
	DiffID string // sha256:HEX of the uncompressed tar
	Size   int64  // bytes as kept
	// Open reads the layer as an uncompressed tar. The reader fails at its end when
	// what was read does not have the layer's digest.
	Open func(ctx context.Context) (io.ReadCloser, error)
}
