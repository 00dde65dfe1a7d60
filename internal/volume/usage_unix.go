//go:build linux || darwin || freebsd

package volume

import "golang.org/x/sys/unix"

// usage gives the bytes of a file system and those that are free for us.
func usage(dir string) (total, free int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, err
	}
	size := int64(st.Bsize) //nolint:unconvert // the type differs by system
	return int64(st.Blocks) * size, int64(st.Bavail) * size, nil
}
