package gcs

import (
	"context"

	"google.golang.org/grpc/codes"

	"tategu/internal/blob"
	"tategu/internal/resource"
)

// protect keeps callers who may create objects and not delete them from writing
// over one that there is: that takes storage.objects.delete
// (cloud.google.com/storage/docs/access-control/iam-permissions). Against a race
// they get the condition that the object does not exist.
func (h *Handler) protect(ctx context.Context, bucket, name string, conds *blob.Conditions) error {
	denied, err := h.onlyNew(ctx, bucket, conds)
	if err != nil || denied == nil {
		return err
	}
	_, err = h.blobs.Stat(ctx, bucket, name, 0, blob.Conditions{})
	switch {
	case err == nil:
		return denied
	case resource.IsNotFound(err):
		return nil
	}
	return err
}

// onlyNew gives the condition alone; denied says why, nil that the caller may
// replace objects, or asks for a new one anyway.
func (h *Handler) onlyNew(ctx context.Context, bucket string, conds *blob.Conditions) (denied, err error) {
	if conds.GenerationMatch != nil && *conds.GenerationMatch == 0 {
		return nil, nil
	}
	err = h.authorize(ctx, bucket, "storage.objects.delete")
	switch resource.CodeOf(err) {
	case codes.OK:
		return nil, nil
	case codes.PermissionDenied, codes.Unauthenticated:
	default:
		return nil, err
	}
	if conds.GenerationMatch == nil {
		conds.GenerationMatch = new(int64)
	}
	return err, nil
}
