package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// build mounts everything below the directory "root" of the box, where we are.
func build(c *Container, s *sources) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("leave the mounts of the machine: %w", err)
	}
	if err := mountImage(c, s.root); err != nil {
		return err
	}
	if err := mountSystem(c); err != nil {
		return err
	}
	for i, b := range c.Binds {
		if err := bind(c, s.binds[i], b); err != nil {
			return fmt.Errorf("mount %s: %w", b.To, err)
		}
	}
	if c.Overlay {
		return nil
	}
	// Mount points are made by now.
	return remount(boxRoot, unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV)
}

func mountImage(c *Container, root *os.File) error {
	if !c.Overlay {
		flags := uintptr(unix.MS_BIND)
		if err := unix.Mount(fdPath(root), boxRoot, "", flags|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("show the image: %w", err)
		}
		return nil
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", fdPath(root), boxUpper, boxWork)
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if c.IDs.User {
		options = "userxattr," + options // the others belong to the machine's root
	}
	// The changes go with the workload: volatile (Linux 5.10) keeps the end of a
	// container from syncing the whole file system that they are on.
	err := unix.Mount("overlay", boxRoot, "overlay", flags, "volatile,"+options)
	if errors.Is(err, unix.EINVAL) {
		err = unix.Mount("overlay", boxRoot, "overlay", flags, options)
	}
	if err != nil {
		return fmt.Errorf("lay the workload's files over the image: %w", err)
	}
	return nil
}

// mountSystem makes what the kernel shows: /proc, /dev, /sys, memory for /dev/shm.
func mountSystem(c *Container) error {
	type mount struct {
		on, kind, options string
		flags             uintptr
	}
	list := []mount{
		{"proc", "proc", "", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"dev", "tmpfs", "size=64k,mode=755", unix.MS_NOSUID | unix.MS_NOEXEC},
		{"dev/shm", "tmpfs", "mode=1777", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{"dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620", unix.MS_NOSUID | unix.MS_NOEXEC},
	}
	for _, m := range list {
		to, err := target(c, m.on, true)
		if err != nil {
			return err
		}
		if err := unix.Mount(m.kind, to, m.kind, m.flags, m.options); err != nil {
			return fmt.Errorf("mount /%s: %w", m.on, err)
		}
	}
	if err := devices(); err != nil {
		return err
	}
	return kernelFiles(c)
}

func devices() error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		to := filepath.Join(boxRoot, "dev", name)
		if err := os.WriteFile(to, nil, 0o666); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("show /dev/%s: %w", name, err)
		}
	}
	for name, link := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(link, filepath.Join(boxRoot, "dev", name)); err != nil {
			return err
		}
	}
	return nil
}

// kernelFiles closes what /proc has beyond processes, and shows /sys for reading
// where that can be made sure of.
func kernelFiles(c *Container) error {
	for _, name := range []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "asound", "kcore", "keys", "key-users", "timer_list", "sched_debug", "latency_stats", "kmsg", "config.gz"} {
		at := filepath.Join(boxRoot, "proc", name)
		st, err := os.Lstat(at)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		from, flags := at, uintptr(unix.MS_RDONLY)
		if !st.IsDir() && name != "sysrq-trigger" {
			from = filepath.Join(boxRoot, "dev", "null") // nothing to read
			flags = 0
		}
		if err := unix.Mount(from, at, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("close /proc/%s: %w", name, err)
		}
		if flags == 0 {
			continue
		}
		if err := remount(at, flags|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC); err != nil {
			return fmt.Errorf("close /proc/%s: %w", name, err)
		}
	}
	to, err := target(c, "sys", true)
	if err != nil {
		return err
	}
	return showSys(to)
}

// showSys binds /sys with all that is mounted there, control groups as well, and
// makes every one of these mounts read-only in one call (Linux 5.12). Where the
// kernel cannot, /sys is empty.
func showSys(to string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/sys", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return nil // an empty /sys is what is promised then
	}
	defer func() { _ = unix.Close(fd) }() // the mount is attached or given up
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		return nil // as above
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, to, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("show /sys: %w", err)
	}
	return nil
}

// remount changes the flags of a mount of ours; those that are locked stay.
func remount(at string, flags uintptr) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return err
	}
	locked := map[int64]uintptr{
		unix.ST_NOSUID: unix.MS_NOSUID, unix.ST_NODEV: unix.MS_NODEV, unix.ST_NOEXEC: unix.MS_NOEXEC, unix.ST_RDONLY: unix.MS_RDONLY,
		unix.ST_NOATIME: unix.MS_NOATIME, unix.ST_NODIRATIME: unix.MS_NODIRATIME, unix.ST_RELATIME: unix.MS_RELATIME,
	}
	for have, keep := range locked {
		if int64(st.Flags)&have != 0 { //nolint:unconvert // the type differs by architecture
			flags |= keep
		}
	}
	return unix.Mount("", at, "", unix.MS_BIND|unix.MS_REMOUNT|flags, "")
}

// bind shows a file or directory of the machine.
func bind(c *Container, from *os.File, b Bind) error {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	to, err := target(c, strings.TrimPrefix(b.To, "/"), st.IsDir())
	if err != nil {
		return err
	}
	if err := unix.Mount(fdPath(from), to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if b.Device {
		return nil
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV)
	if b.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return remount(to, flags)
}

// target makes a mount point below the new root. Links of the image are not
// followed out of it: the kernel resolves the path as if the root was entered.
func target(c *Container, name string, dir bool) (string, error) {
	at := boxRoot
	parts := strings.Split(filepath.Clean(name), "/")
	for i, part := range parts {
		at = filepath.Join(at, part)
		last := i == len(parts)-1
		st, err := os.Lstat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist) && (!last || dir):
			err = os.Mkdir(at, 0o755)
		case errors.Is(err, fs.ErrNotExist):
			err = os.WriteFile(at, nil, 0o644)
		case err == nil && st.Mode()&fs.ModeSymlink != 0:
			// The image's link would lead elsewhere: the mount point takes its place.
			err = replace(c, at, !last || dir)
		case err == nil && last && st.IsDir() != dir:
			err = replace(c, at, dir)
		}
		if err != nil {
			if !c.Overlay {
				return "", fmt.Errorf("the image has no place for /%s, and nothing can be laid over it here: %w", name, err)
			}
			return "", fmt.Errorf("make a place for /%s: %w", name, err)
		}
	}
	return at, nil
}

// replace puts a mount point in the place of something else, in the workload's
// own layer alone.
func replace(c *Container, at string, dir bool) error {
	if !c.Overlay {
		return errors.New("something else is there")
	}
	if err := os.RemoveAll(at); err != nil {
		return err
	}
	if dir {
		return os.Mkdir(at, 0o755)
	}
	return os.WriteFile(at, nil, 0o644)
}
