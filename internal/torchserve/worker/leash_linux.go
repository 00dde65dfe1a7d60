package worker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// newLeash makes one, and the two files that a fork gets of it.
func newLeash(threads int) (*leash, []int, error) {
	page, err := unix.MemfdCreate("threads", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, nil, fmt.Errorf("share memory with a worker: %w", err)
	}
	permits, err := unix.Eventfd(0, unix.EFD_SEMAPHORE|unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("make permits for a worker: %w", err), unix.Close(page))
	}
	l := &leash{page: page, permits: permits}
	if err := l.setThreads(threads); err != nil {
		return nil, nil, errors.Join(err, l.close())
	}
	return l, []int{page, permits}, nil
}

func (l *leash) setThreads(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	_, err := unix.Pwrite(l.page, []byte{byte(min(max(n, 0), 255))}, 0)
	return os.NewSyscallError("pwrite", err)
}

func (l *leash) permit(n int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return os.ErrClosed
	}
	binary.NativeEndian.PutUint64(l.word[:], uint64(n))
	_, err := unix.Write(l.permits, l.word[:])
	return os.NewSyscallError("write", err)
}

// withdraw takes permits back, and says how many there were: each is taken by us or by
// the worker.
func (l *leash) withdraw(most int) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0
	}
	for n < most {
		if _, err := unix.Read(l.permits, l.word[:]); err == nil {
			n++
		} else if !errors.Is(err, unix.EINTR) {
			break // none is left
		}
	}
	return n
}

func (l *leash) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	return errors.Join(unix.Close(l.page), unix.Close(l.permits))
}
