package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"tategu/internal/resource"

	"google.golang.org/grpc/codes"
)

// engineImage is what /images/NAME/json says.
type engineImage struct {
	ID     string `json:"Id"`
	Config struct {
		Env        []string
		User       string
		WorkingDir string
		Entrypoint []string
		Cmd        []string
	}
}

func (c *client) image(ctx context.Context, reference string) (out engineImage, err error) {
	err = c.call(ctx, http.MethodGet, "/images/"+reference+"/json", nil, nil, &out)
	return out, err
}

// pull brings an image from its registry. The engine uses the credentials it has.
func (c *client) pull(ctx context.Context, reference string, say func(string)) error {
	name, tag := splitReference(reference)
	body, err := c.open(ctx, http.MethodPost, "/images/create", url.Values{"fromImage": {name}, "tag": {tag}}, nil)
	if err == nil {
		defer func() { _ = body.Close() }() // read to its end below
		err = progress(body, say)
	}
	if err == nil || ctx.Err() != nil || status(err) == 0 && !errors.As(err, new(*progressError)) {
		return err
	}
	return pullError(reference, err)
}

// load brings an image as an archive of `docker save`.
func (c *client) load(ctx context.Context, archive io.Reader) error {
	body, err := c.open(ctx, http.MethodPost, "/images/load", url.Values{"quiet": {"1"}}, archive)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }() // read to its end below
	return progress(body, func(string) {})
}

// splitReference separates the tag or digest from a name; without one it is the
// tag latest, where the engine would take all there are.
func splitReference(reference string) (name, tag string) {
	if name, digest, ok := strings.Cut(reference, "@"); ok {
		// NAME:TAG@DIGEST is the digest alone.
		name, _ = splitReference(name)
		return name, digest
	}
	// A colon before the last slash belongs to a port.
	if i := strings.LastIndexByte(reference, ':'); i > strings.LastIndexByte(reference, '/') {
		return reference[:i], reference[i+1:]
	}
	return reference, "latest"
}

// progressError is a failure that is told in a stream which began well.
type progressError struct{ message string }

func (e *progressError) Error() string { return e.message }

// progress reads what the engine tells of a long work, a JSON object after another.
func progress(r io.Reader, say func(string)) error {
	for dec := json.NewDecoder(r); ; {
		var line struct {
			Status, ID, Error, Progress string
			ErrorDetail                 struct{ Message string }
		}
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("the container engine's progress: %w", err)
		case line.ErrorDetail.Message != "":
			return &progressError{line.ErrorDetail.Message}
		case line.Error != "":
			return &progressError{line.Error}
		case line.Status != "":
			say(strings.Join(slices.DeleteFunc([]string{line.ID, line.Status, line.Progress}, func(s string) bool { return s == "" }), " "))
		}
	}
}

// pullError says who has to act: the engines give no code for it.
func pullError(reference string, err error) error {
	text := strings.ToLower(err.Error())
	for _, sign := range []string{"manifest unknown", "name unknown", "not known", "not found", "does not exist", "denied", "unauthorized", "authentication required", "invalid reference", "no matching manifest", "short-name"} {
		if strings.Contains(text, sign) {
			return resource.Errorf(codes.FailedPrecondition, "image %s cannot be pulled: %w", reference, err).WithResource(reference).WithCause(resource.CauseInput).
				WithHint("check its name; a private image is brought with `tategu image pull %s`, which has your credentials", reference)
		}
	}
	return resource.Errorf(codes.FailedPrecondition, "image %s cannot be pulled: %w", reference, err).WithResource(reference).WithCause(resource.CauseDependency).
		WithHint("see that its registry can be reached from this machine, or push the image to this server")
}
