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
}

// Layer is a change of a file system.
type Layer struct {
	DiffID string // sha256:HEX of the uncompressed tar
	Size   int64  // bytes as kept
	// Open reads the layer as an uncompressed tar. The reader fails at its end when
	// what was read does not have the layer's digest.
	Open func(ctx context.Context) (io.ReadCloser, error)
}
