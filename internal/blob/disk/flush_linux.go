package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// startWriting lets the kernel begin to write a part of f to the disk. It waits
// for nothing and promises nothing: durable is what Sync says.
func startWriting(f *os.File, offset, length int64) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var flushed error
	if err := raw.Control(func(fd uintptr) {
		flushed = unix.SyncFileRange(int(fd), offset, length, unix.SYNC_FILE_RANGE_WRITE)
	}); err != nil {
		return err
	}
	// Some file systems do not know the call; Sync does all of the work then.
	if errors.Is(flushed, unix.ENOSYS) || errors.Is(flushed, unix.EINVAL) || errors.Is(flushed, unix.EOPNOTSUPP) {
		return nil
	}
	return os.NewSyscallError("sync_file_range", flushed)
}
