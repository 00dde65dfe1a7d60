package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

func fixed(total, free int64) *Volume {
	return New(total, func() (int64, error) { return free, nil }, nil)
}

func TestReserveIsBounded(t *testing.T) {
	t.Parallel()
	for total, want := range map[int64]int64{64 << 20: 64 << 20 / 20, 1 << 40: 64 << 20, 0: 0} {
		if got := fixed(total, 0).Reserve(); got != want {
			t.Errorf("reserve of %d is %d, want %d", total, got, want)
		}
	}
	v, err := Open(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if free, err := v.Free(); err != nil || free <= 0 || v.Reserve() <= 0 {
		t.Errorf("%d free, %d reserved, %v", free, v.Reserve(), err)
	}
}

// TestClaimKeepsTheReserve: what was claimed and not yet written counts.
func TestClaimKeepsTheReserve(t *testing.T) {
	t.Parallel()
	v := fixed(2000, 250) // reserve 100
	first, err := v.Claim(100, Content)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Claim(100, Content); resource.CodeOf(err) != codes.ResourceExhausted || !errors.Is(err, syscall.ENOSPC) || !Blocked(err) {
		t.Errorf("a claim into the reserve gave %v", err)
	}
	if done, err := v.Claim(100, Logs); err != nil {
		t.Errorf("logs may use half of the reserve: %v", err)
	} else {
		done()
	}
	if _, err := v.Claim(101, Logs); err == nil {
		t.Error("logs took more than half of the reserve")
	}
	first()
	if done, err := v.Claim(150, Content); err != nil {
		t.Errorf("a claim of what was given back: %v", err)
	} else {
		done()
	}
	if err := fixed(2000, 99).Room(); resource.CodeOf(err) != codes.ResourceExhausted {
		t.Errorf("room with less than the reserve: %v", err)
	}
}

func TestCheckTellsFullFromBroken(t *testing.T) {
	t.Parallel()
	for errno, want := range map[syscall.Errno]codes.Code{
		syscall.ENOSPC: codes.ResourceExhausted, syscall.EDQUOT: codes.ResourceExhausted,
		syscall.EIO: codes.Unavailable, syscall.EROFS: codes.Unavailable,
	} {
		var told []error
		v := New(0, func() (int64, error) { return 1, nil }, func(err error) { told = append(told, err) })
		err := v.Check("write content", &fs.PathError{Op: "write", Path: "x", Err: errno})
		e, ok := errors.AsType[*resource.Error](err)
		if !ok || e.Code != want || e.Hint == "" || !errors.Is(err, errno) || !Blocked(err) {
			t.Errorf("%v became %v", errno, err)
		}
		broken := want == codes.Unavailable
		if (v.Writable() != nil) != broken || (len(told) == 1) != broken {
			t.Errorf("after %v: writable %v, told %v", errno, v.Writable(), told)
		}
		if !broken {
			continue
		}
		if _, err := v.Claim(1, Content); !errors.Is(err, ErrReadOnly) {
			t.Errorf("a claim on a broken volume gave %v", err)
		}
		if v.Break(errors.New("second")); len(told) != 1 || !errors.Is(v.Writable(), errno) {
			t.Errorf("a second failure changed what is said: %v, %v", told, v.Writable())
		}
	}
	v := fixed(0, 1)
	if err := v.Check("open", os.ErrNotExist); !errors.Is(err, fs.ErrNotExist) || v.Writable() != nil {
		t.Errorf("a missing file became %v", err)
	}
	if v.Check("write", nil) != nil {
		t.Error("no error became one")
	}
}

func TestNilVolumeHasRoom(t *testing.T) {
	t.Parallel()
	var v *Volume
	done, err := v.Claim(1<<40, Content)
	if err != nil || v.Room() != nil || v.Writable() != nil || v.Low() {
		t.Fatal(err)
	}
	done()
	if err := v.Check("write", syscall.EIO); !errors.Is(err, ErrReadOnly) {
		t.Error(err)
	}
}

func TestRetryWaitsForSpace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tries, told := 0, 0
		err := Retry(t.Context(), func(error) { told++ }, func() error {
			if tries++; tries < 4 {
				return fmt.Errorf("commit: %w", Full(syscall.ENOSPC))
			}
			return nil
		})
		if err != nil || tries != 4 || told != 3 {
			t.Errorf("%d tries, told %d times, %v", tries, told, err)
		}
		other := errors.New("no such row")
		if err := Retry(t.Context(), nil, func() error { return other }); !errors.Is(err, other) {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if err := Retry(ctx, func(error) { cancel() }, func() error { return Full(syscall.ENOSPC) }); !Blocked(err) {
			t.Error(err)
		}
	})
}
