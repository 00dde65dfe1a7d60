package modelformat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/modelformat/lightgbm"
	"tategu/internal/resource"
)

// object is a place in the object store; name "" means that there is none.
type object struct{ bucket, name string }

func (o object) uri() string { return "gs://" + o.bucket + "/" + o.name }

// splitURI cuts gs://BUCKET/NAME.
func splitURI(uri string) (object, error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	bucket, name, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return object{}, resource.Invalid("artifact_uri", "%q is not of the form gs://BUCKET/NAME", uri)
	}
	return object{bucket, name}, nil
}

// findLightGBM looks for a LightGBM text model: the object uri itself, else
// among the objects directly under it model.txt, then any *.lgb or *.txt that
// begins like one.
func (p *Planner) findLightGBM(ctx context.Context, uri string) (object, error) {
	if uri == "" {
		return object{}, nil
	}
	at, err := splitURI(uri)
	if err != nil {
		return object{}, err
	}
	dir := strings.TrimSuffix(at.name, "/")
	if dir != "" {
		switch ok, err := p.isLightGBM(ctx, object{at.bucket, dir}); {
		case err != nil:
			return object{}, err
		case ok:
			return object{at.bucket, dir}, nil
		}
		dir += "/"
	}
	var found []object
	for q := (blob.ListQuery{Prefix: dir, Delimiter: "/"}); ; {
		page, err := p.Objects.List(ctx, at.bucket, q)
		if err != nil {
			return object{}, fmt.Errorf("look for a model file in %s: %w", uri, err)
		}
		for _, o := range page.Objects {
			candidate := object{at.bucket, o.Name}
			if ext := path.Ext(o.Name); ext != ".txt" && ext != ".lgb" {
				continue
			}
			if ok, err := p.isLightGBM(ctx, candidate); err != nil {
				return object{}, err
			} else if ok {
				found = append(found, candidate)
			}
		}
		if q.After = page.Next; page.Next == "" {
			break
		}
	}
	return choose(uri, dir, found)
}

func choose(uri, dir string, found []object) (object, error) {
	if i := slices.IndexFunc(found, func(o object) bool { return o.name == dir+"model.txt" }); i >= 0 {
		return found[i], nil
	}
	switch len(found) {
	case 0:
		return object{}, nil
	case 1:
		return found[0], nil
	}
	return object{}, resource.Errorf(codes.FailedPrecondition, "%s holds several LightGBM models: %s and %s", uri, path.Base(found[0].name), path.Base(found[1].name)).
		WithCause(resource.CauseModel).WithHint("name the one to serve model.txt, or make artifact_uri its URI")
}

// isLightGBM reads the first bytes; an object that does not exist is not one.
func (p *Planner) isLightGBM(ctx context.Context, o object) (is bool, err error) {
	r, err := p.Objects.ReadObject(ctx, o.bucket, o.name)
	if resource.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", o.uri(), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var head [5]byte
	n, err := io.ReadFull(r, head[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, fmt.Errorf("read %s: %w", o.uri(), err)
	}
	start := string(head[:n])
	return start == "tree\n" || start == "tree\r", nil
}

func (p *Planner) load(ctx context.Context, o object) (n *Native, err error) {
	r, err := p.Objects.ReadObject(ctx, o.bucket, o.name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.uri(), err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	model, err := lightgbm.Parse(r)
	if syntax, ok := errors.AsType[*lightgbm.SyntaxError](err); ok {
		return nil, resource.Errorf(codes.FailedPrecondition, "%s is not a LightGBM model that can be served: %w", o.uri(), syntax).
			WithCause(resource.CauseModel).WithHint(`save it again with booster.save_model("model.txt"), and check that the whole file was uploaded`)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", o.uri(), err)
	}
	return newNative(model), nil
}
