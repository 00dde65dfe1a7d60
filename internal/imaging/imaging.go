// Package imaging is the client's side of container images: it reads them from tars,
// layouts and registries, builds them by adding one layer to a base, and moves them
// between those and a server, over the registry API.
package imaging

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"google.golang.org/grpc/codes"

	"tategu/internal/image"
	"tategu/internal/resource"
)

// Client talks to the registry of a server.
type Client struct {
	Base  string // http://HOST:PORT or https://HOST:PORT
	HTTP  *http.Client
	Token func(ctx context.Context) (string, error) // nil: the caller is on the server's machine
	// Progress, unless nil, is told how much of what is to be sent was sent, in bytes.
	Progress func(done, total int64)
}

func (c *Client) host() string {
	_, host, _ := strings.Cut(c.Base, "://")
	return host
}

func (c *Client) options(ctx context.Context) ([]remote.Option, error) {
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(c.HTTP.Transport), remote.WithUserAgent("tategu"), remote.WithJobs(4)}
	if c.Token == nil {
		return append(options, remote.WithAuth(authn.Anonymous)), nil
	}
	token, err := c.Token(ctx)
	if err != nil {
		return nil, err
	}
	return append(options, remote.WithAuth(authn.FromConfig(authn.AuthConfig{RegistryToken: token}))), nil
}

// reference names a tag or digest of a repository of the server.
func (c *Client) reference(repo, version string) (name.Reference, error) {
	var options []name.Option
	if strings.HasPrefix(c.Base, "http://") {
		options = append(options, name.Insecure)
	}
	sep := ":"
	if strings.Contains(version, ":") {
		sep = "@"
	}
	return name.ParseReference(c.host()+"/"+repo+sep+version, options...)
}

// Target is where an image of a name is put: Docker Hub's names in full, others as
// they are.
func (c *Client) Target(nameOf string) (name.Reference, error) {
	ref, err := c.parse(nameOf)
	if err != nil {
		return nil, err
	}
	if ref.Digest != "" {
		return nil, resource.Invalid("name", "an image is put under a tag and not under a digest: %s", nameOf)
	}
	return c.reference(ref.Repository(), ref.Version())
}

// Digest names a manifest of a repository of the server by its digest.
func (c *Client) Digest(repo, digest string) (name.Reference, error) {
	return c.reference(repo, digest)
}

// parse reads a name; the server's own address in it is left out.
func (c *Client) parse(nameOf string) (image.Reference, error) {
	ref, err := image.ParseReference(nameOf)
	if ref.Host == c.host() {
		ref.Host = ""
	}
	return ref, err
}

// Find gives the reference under which the server has an image.
func (c *Client) Find(ctx context.Context, nameOf string) (name.Reference, error) {
	ref, err := c.parse(nameOf)
	if err != nil {
		return nil, err
	}
	options, err := c.options(ctx)
	if err != nil {
		return nil, err
	}
	for _, repo := range ref.Candidates() {
		found, err := c.reference(repo, ref.Version())
		if err != nil {
			return nil, err
		}
		_, err = remote.Head(found, options...)
		if err == nil {
			return found, nil
		}
		if !isStatus(err, http.StatusNotFound) {
			return nil, c.explain(err)
		}
	}
	return nil, resource.Errorf(codes.NotFound, "the server has no image %s", nameOf).
		WithHint("`tategu image ls` shows those that it has; `tategu image pull %s` brings it from its registry", nameOf)
}

func isStatus(err error, status int) bool {
	e, ok := errors.AsType[*transport.Error](err)
	return ok && e.StatusCode == status
}

// explain gives the registry's own words.
func (c *Client) explain(err error) error {
	e, ok := errors.AsType[*transport.Error](err)
	if !ok && strings.Contains(err.Error(), "error verifying") { // the library's own word, whose type it keeps to itself
		return resource.Errorf(codes.DataLoss, "what the registry sent is not what it named: %w", err).WithCause(resource.CauseDependency).
			WithHint("fetch it again; if it stays so, the image must be pushed anew there")
	}
	if !ok {
		return err
	}
	for _, d := range e.Errors {
		if d.Message != "" {
			return fmt.Errorf("%s: %s", http.StatusText(e.StatusCode), d.Message)
		}
	}
	return err
}

// Picture is an image, or an index of images, from anywhere.
type Picture struct {
	Name  string // that it came with; "" = none
	Image v1.Image
	Index v1.ImageIndex // instead of Image
}

// Get reads an image of the server.
func (c *Client) Get(ctx context.Context, ref name.Reference) (*remote.Descriptor, error) {
	options, err := c.options(ctx)
	if err != nil {
		return nil, err
	}
	d, err := remote.Get(ref, append(options, remote.WithPlatform(platform("")))...)
	return d, c.explainNil(err)
}

func (c *Client) explainNil(err error) error {
	if err == nil {
		return nil
	}
	return c.explain(err)
}

// Put sends a picture to the server.
func (c *Client) Put(ctx context.Context, to name.Reference, p Picture) error {
	options, err := c.options(ctx)
	if err != nil {
		return err
	}
	return c.send(to, p, options)
}

// Send puts a picture anywhere.
func (c *Client) Send(ctx context.Context, to name.Reference, p Picture, login Login) error {
	return c.send(to, p, login.options(ctx))
}

func (c *Client) send(to name.Reference, p Picture, options []remote.Option) error {
	if err := p.check(); err != nil {
		return err
	}
	var shown sync.WaitGroup
	if c.Progress != nil {
		updates := make(chan v1.Update, 64)
		options = append(options, remote.WithProgress(updates))
		shown.Go(func() {
			for u := range updates {
				c.Progress(u.Complete, u.Total)
			}
		})
	}
	var err error
	if p.Index != nil {
		err = remote.WriteIndex(to, p.Index, options...)
	} else {
		err = remote.Write(to, p.Image, options...)
	}
	shown.Wait()
	return c.explainNil(err)
}

// check refuses what would be left out of an image on the way.
func (p Picture) check() error {
	if p.Index != nil {
		return nil // its images are checked by the server when they are run
	}
	m, err := p.Image.Manifest()
	if err != nil {
		return fmt.Errorf("read the image: %w", err)
	}
	for _, l := range m.Layers {
		if !l.MediaType.IsDistributable() {
			return resource.Unimplemented("a foreign layer (" + string(l.MediaType) + "), which is fetched from elsewhere,")
		}
		if strings.HasSuffix(string(l.MediaType), "+encrypted") {
			return resource.Unimplemented("an encrypted layer (" + string(l.MediaType) + ")")
		}
	}
	return nil
}

// Login is a credential for another registry. Without a user name the files and
// helpers of Docker's configuration are asked.
type Login struct {
	Username, Password string
	Transport          http.RoundTripper
}

func (l Login) options(ctx context.Context) []remote.Option {
	options := []remote.Option{remote.WithContext(ctx), remote.WithTransport(l.Transport), remote.WithUserAgent("tategu"), remote.WithJobs(4)}
	if l.Username != "" {
		return append(options, remote.WithAuth(authn.FromConfig(authn.AuthConfig{Username: l.Username, Password: l.Password})))
	}
	return append(options, remote.WithAuthFromKeychain(authn.DefaultKeychain))
}

// Fetch reads an image of another registry: that for the platform (os/arch, "" =
// Linux on this processor), or with all every platform.
func Fetch(ctx context.Context, ref name.Reference, platformOf string, all bool, login Login) (Picture, error) {
	d, err := remote.Get(ref, append(login.options(ctx), remote.WithPlatform(platform(platformOf)))...)
	if err != nil {
		return Picture{}, unfetched(ref, err)
	}
	p := Picture{Name: ref.String()}
	if all && d.MediaType.IsIndex() {
		p.Index, err = d.ImageIndex()
	} else {
		p.Image, err = d.Image()
	}
	if err != nil {
		return p, fmt.Errorf("read %s: %w", ref, err)
	}
	return p, nil
}

// unfetched says whose turn it is when another registry gave no image.
func unfetched(ref name.Reference, err error) *resource.Error {
	e := resource.Errorf(codes.Unavailable, "fetch %s: %w", ref, err)
	e.Message = strings.Join(strings.Fields(e.Message), " ") // registries answer in lines
	host := ref.Context().RegistryStr()
	switch {
	case isStatus(err, http.StatusUnauthorized), isStatus(err, http.StatusForbidden):
		e.Code, e.Cause, e.Reason = codes.PermissionDenied, resource.CauseInput, "REGISTRY_DENIED"
		return e.WithHint("log in (`docker login %s`, or --username and --password-stdin); some registries say this of an image that does not exist", host)
	case isStatus(err, http.StatusNotFound):
		e.Code, e.Cause, e.Reason = codes.NotFound, resource.CauseInput, "IMAGE_UNKNOWN"
		return e.WithHint("check the name and the tag: %s has no such image", host)
	}
	e.Cause, e.Reason = resource.CauseDependency, "REGISTRY_UNREACHABLE"
	if _, answered := errors.AsType[*transport.Error](err); answered {
		e.Reason = "REGISTRY_FAILS"
		return e.WithHint("%s is out of order or limits how much is fetched: try again later", host)
	}
	return e.WithHint("check the name of the registry, and that this machine reaches %s", host)
}

// platform reads OS/ARCH[/VARIANT].
func platform(s string) v1.Platform {
	if s == "" {
		return v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	}
	parts := strings.SplitN(s, "/", 3)
	p := v1.Platform{OS: parts[0]}
	if len(parts) > 1 {
		p.Architecture = parts[1]
	}
	if len(parts) > 2 {
		p.Variant = parts[2]
	}
	return p
}

// layerType fits the manifest of an image.
func layerType(manifest types.MediaType) types.MediaType {
	if manifest == types.DockerManifestSchema2 {
		return types.DockerLayer
	}
	return types.OCILayer
}

// Digest of the image or index.
func (p Picture) Digest() (v1.Hash, error) {
	if p.Index != nil {
		return p.Index.Digest()
	}
	return p.Image.Digest()
}

// Image reads an image of the server for a platform.
func (c *Client) Image(ctx context.Context, ref name.Reference, platformOf string) (v1.Image, error) {
	options, err := c.options(ctx)
	if err != nil {
		return nil, err
	}
	img, err := remote.Image(ref, append(options, remote.WithPlatform(platform(platformOf)))...)
	return img, c.explainNil(err)
}

// Tag gives an image of the server another name; its layers are not sent.
func (c *Client) Tag(ctx context.Context, nameOf, as string) error {
	from, err := c.Find(ctx, nameOf)
	if err != nil {
		return err
	}
	to, err := c.Target(as)
	if err != nil {
		return err
	}
	d, err := c.Get(ctx, from)
	if err != nil {
		return err
	}
	p := Picture{}
	if d.MediaType.IsIndex() {
		p.Index, err = d.ImageIndex()
	} else {
		p.Image, err = d.Image()
	}
	if err != nil {
		return err
	}
	return c.Put(ctx, to, p)
}

// Remove deletes a tag, or a manifest by digest, and gives its name at the server.
func (c *Client) Remove(ctx context.Context, nameOf string) (string, error) {
	ref, err := c.Find(ctx, nameOf)
	if err != nil {
		return "", err
	}
	options, err := c.options(ctx)
	if err != nil {
		return "", err
	}
	sep := ":"
	if strings.Contains(ref.Identifier(), ":") {
		sep = "@"
	}
	return ref.Context().RepositoryStr() + sep + ref.Identifier(), c.explainNil(remote.Delete(ref, options...))
}
