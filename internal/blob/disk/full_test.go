package disk

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// TestFullDiskIsSaidByCode: clients get 507 and the next step, not an internal error.
func TestFullDiskIsSaidByCode(t *testing.T) {
	t.Parallel()
	for _, errno := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT} {
		err := diskError("write", &fs.PathError{Op: "write", Path: "x", Err: errno})
		e, ok := errors.AsType[*resource.Error](err)
		if !ok || e.Code != codes.ResourceExhausted || e.Hint == "" || !errors.Is(err, errno) {
			t.Errorf("%v became %v", errno, err)
		}
	}
	if err := diskError("write", nil); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := diskError("write", os.ErrNotExist); !errors.Is(err, fs.ErrNotExist) || resource.CodeOf(err) == codes.ResourceExhausted {
		t.Errorf("a missing file became %v", err)
	}
}
