package resource

import (
	"context"
	"crypto/sha256"
	"regexp"
)

// IDHeader names the header (of gRPC: the metadata) by which a caller chooses the
// numeric id of what a call makes, where the API has no field for it: of the
// resource, and of the long-running operation. A call that is repeated with the same
// id then makes nothing a second time; it answers ALREADY_EXISTS, or NOT_FOUND where
// the first call removed what it was about.
const IDHeader = "X-Tategu-Id"

type idKey struct{}

// WithID carries the id that a caller chose; "" is none.
func WithID(ctx context.Context, id string) (context.Context, error) {
	if id == "" {
		return ctx, nil
	}
	if !regexp.MustCompile(`^[1-9][0-9]{0,18}$`).MatchString(id) {
		return ctx, Invalid(IDHeader, "the header %s is %.40q: want a number of up to 19 digits", IDHeader, id)
	}
	return context.WithValue(ctx, idKey{}, id), nil
}

// IDFor gives the id of what a call makes, and whether the caller chose it.
func IDFor(ctx context.Context) (id string, chosen bool) {
	if id, ok := ctx.Value(idKey{}).(string); ok {
		return id, true
	}
	return NewID(), false
}

// IDOf makes an id of the form of NewID that the same text always gives.
func IDOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return numeric([8]byte(sum[:]))
}
