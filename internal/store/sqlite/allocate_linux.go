package sqlite

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate takes room for a file without making it longer.
func allocate(path string, size int64) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return // there is no log, or it may not be written: commits will tell
	}
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, size) // not every file system can
	_ = f.Close()                                                      // nothing was written
}
