// Package volume is what the server knows of the file system that holds its data
// directory: how much room is left, and whether what is written can still be
// trusted. Whoever writes there shows its errors to Check, which tells a full
// disk, which passes, from a broken one, which does not.
//
// After a failed fsync nobody knows which written pages are on the disk: the
// kernel may report the error once and call the pages clean from then on. So the
// first such failure makes the volume read-only until the process is started
// again and reads the disk anew.
package volume

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"google.golang.org/grpc/codes"

	"tategu/internal/resource"
)

// Reserve of a file system: what object content leaves free, so that state can
// still be written and objects be deleted when clients have filled the disk.
const (
	maxReserve   = 64 << 20
	reserveShare = 20 // a twentieth of a small file system
)

// Volume is one file system. The nil Volume has room and never breaks.
type Volume struct {
	free    func() (int64, error)
	total   int64 // 0 = not known
	reserve int64
	tell    func(error)

	pending atomic.Int64 // bytes claimed and perhaps not yet written
	broken  atomic.Pointer[resource.Error]
}

// Open looks at the file system of dir, which exists. tell, which may be nil, is
// called once, when the volume becomes read-only.
func Open(dir string, tell func(error)) (*Volume, error) {
	total, _, err := usage(dir)
	if err != nil {
		return nil, fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	free := func() (int64, error) {
		_, free, err := usage(dir)
		return free, err
	}
	return New(total, free, tell), nil
}

// New is a volume that the caller measures: total bytes once, free ones when asked.
// tell is as in Open.
func New(total int64, free func() (int64, error), tell func(error)) *Volume {
	if tell == nil {
		tell = func(error) {}
	}
	return &Volume{free: free, total: total, reserve: min(maxReserve, total/reserveShare), tell: tell}
}

// Reserve is how many bytes object content leaves free.
func (v *Volume) Reserve() int64 {
	if v == nil {
		return 0
	}
	return v.reserve
}

// Holds reports whether n bytes could be written at all, on the empty file system.
func (v *Volume) Holds(n int64) bool { return v == nil || v.total == 0 || n <= v.total-v.reserve }

// Free is how many bytes this process may still write.
func (v *Volume) Free() (int64, error) {
	if v == nil {
		return 1 << 62, nil
	}
	return v.free()
}

// Use says what bytes are for, and so how much of the reserve they may take.
type Use int

// Uses, the first to be refused first.
const (
	Content Use = iota // objects: none of the reserve
	Logs               // output of programs: half of it
)

func (v *Volume) kept(use Use) int64 {
	if use == Logs {
		return v.reserve / 2
	}
	return v.reserve
}

// Claim asks for room for n more bytes. The caller writes them and then calls
// done. Without room it gives ResourceExhausted, on a read-only volume Unavailable.
func (v *Volume) Claim(n int64, use Use) (done func(), err error) {
	if v == nil {
		return func() {}, nil
	}
	if err := v.Writable(); err != nil {
		return nil, err
	}
	pending := v.pending.Add(n)
	done = func() { v.pending.Add(-n) }
	free, err := v.free()
	if err != nil {
		done()
		return nil, fmt.Errorf("look for free space: %w", err)
	}
	if free-pending < v.kept(use) {
		done()
		return nil, full(fmt.Errorf("%d bytes are free and %d are kept for the server's state: %w", free, v.kept(use), syscall.ENOSPC))
	}
	return done, nil
}

// Room is nil when a request that adds to the state may be taken: ResourceExhausted
// while less than the reserve is free, Unavailable on a read-only volume.
func (v *Volume) Room() error {
	done, err := v.Claim(0, Content)
	if err == nil {
		done()
	}
	return err
}

// Low reports that less than twice the reserve is free: time to save space.
func (v *Volume) Low() bool {
	if v == nil {
		return false
	}
	free, err := v.free()
	return err == nil && free < 2*v.reserve
}

// Writable is nil until the volume has become read-only; then an Unavailable
// error with the reason.
func (v *Volume) Writable() error {
	if v == nil {
		return nil
	}
	if e := v.broken.Load(); e != nil {
		return e
	}
	return nil
}

// Break makes the volume read-only for good. cause says what failed; the first
// one is kept. The error that writers get from now on comes back.
func (v *Volume) Break(cause error) error {
	e := resource.Errorf(codes.Unavailable, "the server is read-only: its disk failed (%v)", cause)
	e.Err = errors.Join(ErrReadOnly, cause)
	e = e.WithCause(resource.CausePlatform).WithHint("check the disk of the data directory, then restart the server")
	if v == nil {
		return e
	}
	if v.broken.CompareAndSwap(nil, e) {
		v.tell(e)
	}
	return v.broken.Load()
}

// ErrReadOnly is wrapped by what writers get of a broken volume.
var ErrReadOnly = errors.New("read-only after a disk failure")

// Check turns the error of a write, an fsync or a rename into what clients
// should see, and makes the volume read-only when the disk is broken. nil stays nil.
func (v *Volume) Check(op string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return full(err)
	case isBroken(err):
		return v.Break(fmt.Errorf("%s: %w", op, err))
	}
	return fmt.Errorf("%s: %w", op, err)
}

// isBroken knows what kernels answer for a disk that is failing or gone, and for
// a file system that was remounted read-only because of it.
func isBroken(err error) bool {
	for _, errno := range []syscall.Errno{syscall.EIO, syscall.EROFS, syscall.ENXIO, syscall.ENODEV} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// Full is the error of a full disk; err says where.
func Full(err error) error { return full(err) }

func full(err error) *resource.Error {
	if e, ok := errors.AsType[*resource.Error](err); ok && errors.Is(e, syscall.ENOSPC) {
		return e
	}
	e := resource.Errorf(codes.ResourceExhausted, "no space left in the data directory: %v", err)
	e.Err = errors.Join(syscall.ENOSPC, err)
	return e.WithCause(resource.CauseResource).
		WithHint("delete what is not needed or make the disk larger, and try again; nothing was stored")
}

// Blocked reports an error of a disk that is full or read-only: the same work can
// be done later, unchanged.
func Blocked(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, ErrReadOnly)
}
