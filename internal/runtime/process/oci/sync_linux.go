package oci

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// syncTree writes all of a tree to the disk. One call for its file system costs
// less than one for each of its files.
func syncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(os.NewSyscallError("syncfs", unix.Syncfs(int(d.Fd()))), d.Close())
}
