package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"syscall"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"gocloud.dev/gcerrors"
	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// errRange says that a read began after the end of an object.
var errRange = errors.New("the object ends before the first byte asked for")

// httpStatus gives what the service answered, 0 when it did not.
func httpStatus(err error) int {
	if e, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok { // s3 and gs
		return e.HTTPStatusCode()
	}
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return e.StatusCode
	}
	return 0
}

// errorCode gives the service's own word for an error.
func errorCode(err error) string {
	if e, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok { // s3 and gs
		return e.ErrorCode()
	}
	if e, ok := errors.AsType[*azcore.ResponseError](err); ok {
		return e.ErrorCode
	}
	return ""
}

// forbidden also finds what drivers call "not found".
func forbidden(err error) bool {
	if e, ok := errors.AsType[*gsError](err); ok && e.busy() {
		return false
	}
	status := httpStatus(err)
	return status == http.StatusForbidden || status == http.StatusUnauthorized ||
		gcerrors.Code(err) == gcerrors.PermissionDenied || errors.Is(err, fs.ErrPermission)
}

// noSpace tells a full store by the codes that services have for it: the AWS API
// has none, stores that speak it have several.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || httpStatus(err) == http.StatusInsufficientStorage ||
		slices.Contains([]string{"QuotaExceeded", "quotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "StorageFull", "AccountLimitExceeded"}, errorCode(err))
}

// missing is failed for a request about one object that may not be there.
func (c *Content) missing(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case httpStatus(err) == http.StatusRequestedRangeNotSatisfiable:
		return errRange
	case gcerrors.Code(err) == gcerrors.NotFound && !forbidden(err):
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return c.failed(op, err)
}

// failed says what went wrong between us and the bucket, and who can mend it.
func (c *Content) failed(op string, err error) error { return c.address.failed(op, err) }

func (a Address) failed(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*resource.Error](err); done {
		return err
	}
	absent := gcerrors.Code(err) == gcerrors.NotFound
	if errors.Is(err, fs.ErrNotExist) { // must not look like a missing content
		absent, err = true, errors.New(err.Error())
	}
	fail := func(code codes.Code, what string) *resource.Error {
		return resource.Errorf(code, "cannot %s the bucket %s: %s: %w", op, a, what, err)
	}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s the bucket %s: %w", op, a, err)
	case noSpace(err):
		return fail(codes.ResourceExhausted, "no space is left in it").WithCause(resource.CauseResource).
			WithHint("free some space there or raise its quota, and try again; nothing was stored")
	case forbidden(err):
		return fail(codes.Unavailable, "it does not let us").WithCause(resource.CauseDependency).
			WithHint("reading, writing, listing and deleting objects must be allowed; credentials come from %s", a.credentials())
	case absent:
		return fail(codes.Unavailable, "it does not exist").WithCause(resource.CauseDependency).
			WithHint("create it, or correct storage.objects; credentials come from %s", a.credentials())
	}
	return fail(codes.Unavailable, "it cannot be used now").WithCause(resource.CauseDependency).
		WithHint("check that it is reachable from here and that the URL is right; credentials come from %s", a.credentials())
}
