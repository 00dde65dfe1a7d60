package batch

import (
	"context"
	"fmt"
	"path"
	"strings"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// object is a place in the object store.
type object struct{ bucket, name string }

func parseURI(uri string) (object, error) {
	rest, ok := strings.CutPrefix(uri, "gs://")
	bucket, name, _ := strings.Cut(rest, "/")
	if !ok || bucket == "" {
		return object{}, resource.Invalid("gcs", "%q is not of the form gs://BUCKET/NAME", uri)
	}
	return object{bucket, name}, nil
}

// inputs finds the objects that the URIs name, in order. A URI may end in a
// directory, and may hold the wildcards * (within a segment) and ** (across).
func (r *run) inputs(ctx context.Context, uris []string) ([]object, error) {
	var all []object
	for _, uri := range uris {
		at, err := parseURI(uri)
		if err != nil {
			return nil, err
		}
		found, err := r.expand(ctx, at)
		if err != nil {
			return nil, err
		}
		if len(found) == 0 {
			return nil, resource.Errorf(codes.NotFound, "no object matches the input %s", uri).WithCause(resource.CauseInput).WithResource(uri).
				WithHint("`tategu ls -r gs://%s` shows what is there", at.bucket)
		}
		all = append(all, found...)
	}
	return all, nil
}

func (r *run) expand(ctx context.Context, at object) ([]object, error) {
	star := strings.IndexByte(at.name, '*')
	prefix := at.name
	if star >= 0 {
		prefix = at.name[:star]
	}
	var found []object
	for q := (blob.ListQuery{Prefix: prefix}); ; {
		page, err := r.objects.List(ctx, at.bucket, q)
		if err != nil {
			return nil, fmt.Errorf("list input gs://%s/%s: %w", at.bucket, at.name, err)
		}
		for _, o := range page.Objects {
			if o.Name == at.name { // an exact name is that object alone
				return []object{at}, nil
			}
			if Matches(at.name, o.Name) && !strings.HasSuffix(o.Name, "/") {
				found = append(found, object{at.bucket, o.Name})
			}
		}
		if q.After = page.Next; page.Next == "" {
			return found, nil
		}
	}
}

// Matches reports whether an object belongs to a URI's name part.
func Matches(pattern, name string) bool {
	if !strings.Contains(pattern, "*") {
		dir := strings.TrimSuffix(pattern, "/")
		return dir == "" || strings.HasPrefix(name, dir+"/")
	}
	before, after, across := strings.Cut(pattern, "**")
	if !across {
		ok, err := path.Match(pattern, name)
		return ok && err == nil
	}
	rest, ok := strings.CutPrefix(name, before)
	if !ok {
		return false
	}
	for i := 0; i <= len(rest); i++ {
		if ok, err := path.Match(strings.TrimPrefix(after, "/"), rest[i:]); ok && err == nil {
			return true
		}
	}
	return false
}

func unreadable(o object, err error) error {
	return resource.Errorf(codes.InvalidArgument, "input gs://%s/%s cannot be read: %w", o.bucket, o.name, err).WithCause(resource.CauseInput)
}
