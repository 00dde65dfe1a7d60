package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Attr starts the wrapper as the first process of new namespaces. The network is
// the machine's, unless it is to be alone. It runs as the server's own user, who is
// nobody inside, so that it reaches the workload's directory and no program in the
// container reaches it.
func Attr(ids Mapping, alone bool) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS}
	if alone {
		attr.Cloneflags |= unix.CLONE_NEWNET
	}
	if !ids.User {
		return attr
	}
	attr.Cloneflags |= unix.CLONE_NEWUSER
	host := []syscall.SysProcIDMap{{ContainerID: 0, HostID: ids.Base, Size: ids.Count}}
	attr.UidMappings, attr.GidMappings = host, host
	if ids.Count <= 1 {
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	attr.GidMappingsEnableSetgroups = ids.Count > 1
	if ids.Base != 0 {
		attr.AmbientCaps = ambient()
	}
	return attr
}

// HostPID is our own number as the machine sees it, as long as its /proc shows.
func HostPID() (int, error) {
	link, err := os.Readlink("/proc/self")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(link)
}

// Start builds the container in the workload's directory dir, moves this process
// into it and starts the program as the container's user. It is called once, by
// the first process of the namespaces. Stdout and stderr are our own.
func Start(dir string, c *Container, command, env []string) (pid int, err error) {
	// The thread ends with the goroutine: its ids, filters and bounds are the
	// program's, while all other threads of the wrapper keep the server's.
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		pid, err = start(dir, c, command, env)
	}()
	<-done
	return pid, err
}

func start(dir string, c *Container, command, env []string) (int, error) {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("hide the wrapper: %w", err)
	}
	group, err := join(c.Cgroup)
	if err != nil {
		return 0, err
	}
	defer func() { _ = group.Close() }() // a nil file is fine, too
	sources, err := open(dir, c)
	if err != nil {
		return 0, err
	}
	defer sources.close()
	if err := becomeRoot(c.IDs); err != nil {
		return 0, err
	}
	if c.Alone {
		if err := raiseLoopback(); err != nil {
			return 0, fmt.Errorf("raise the loopback interface: %w", err)
		}
	}
	if err := build(c, sources); err != nil {
		return 0, err
	}
	if err := enter(c); err != nil {
		return 0, err
	}
	return launch(c, command, env, group)
}

// join puts the calling thread in the version 1 groups; the program inherits
// them. Version 2 takes the program at its start.
func join(c Cgroup) (*os.File, error) {
	for _, dir := range c.V1 {
		if err := os.WriteFile(filepath.Join(dir, "tasks"), []byte("0"), 0o644); err != nil {
			return nil, fmt.Errorf("enter the control group: %w", err)
		}
	}
	if c.V2 == "" {
		return nil, nil
	}
	return os.Open(c.V2)
}

// sources are directories and files of the machine, opened while we may reach
// them: the container's root cannot walk the server's directories.
type sources struct {
	root  *os.File
	binds []*os.File
	null  *os.File
}

func open(dir string, c *Container) (s *sources, err error) {
	s = &sources{}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.root, err = openPath(c.Root); err != nil {
		return s, fmt.Errorf("open the image: %w", err)
	}
	for _, b := range c.Binds {
		f, err := openPath(b.From)
		if err != nil {
			return s, fmt.Errorf("open what is mounted on %s: %w", b.To, err)
		}
		s.binds = append(s.binds, f)
	}
	if s.null, err = os.Open(os.DevNull); err != nil {
		return s, err
	}
	return s, os.Chdir(filepath.Join(dir, Box))
}

func openPath(name string) (*os.File, error) {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

func (s *sources) close() {
	for _, f := range append(s.binds, s.root, s.null) {
		_ = f.Close() // read by nobody; nil is fine
	}
}

func fdPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// becomeRoot makes the calling thread root of the container; the others stay the
// server's user. The raw calls are what changes one thread alone.
func becomeRoot(ids Mapping) error {
	if !ids.User || ids.Count > 1 {
		if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); errno != 0 {
			return fmt.Errorf("leave the server's groups: %w", errno)
		}
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); errno != 0 {
		return fmt.Errorf("become the container's root group: %w", errno)
	}
	if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); errno != 0 {
		return fmt.Errorf("become the container's root: %w", errno)
	}
	return nil
}

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

// enter makes the new root the only one that this process, and whatever it
// starts, can ever see.
func enter(c *Container) error {
	if err := os.Chdir(boxRoot); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter the container: %w", err)
	}
	// The old root lies over the new one; what is below it goes as well.
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's files: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(c.Host)); err != nil {
		return fmt.Errorf("name the container: %w", err)
	}
	if c.Overlay {
		return os.MkdirAll(c.Dir, 0o755)
	}
	return nil
}

// launch starts the program from the calling thread, whose bounds it inherits.
func launch(c *Container, command, env []string, group *os.File) (int, error) {
	path, err := look(command[0], c.Dir, env)
	if err != nil {
		return 0, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer func() { _ = null.Close() }() // opened for reading
	attr := &syscall.SysProcAttr{Setpgid: true, Credential: credential(c)}
	if group != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(group.Fd())
	}
	if err := confine(c); err != nil {
		return 0, err
	}
	pid, err := syscall.ForkExec(path, command, &syscall.ProcAttr{Dir: c.Dir, Env: env, Files: []uintptr{null.Fd(), 1, 2}, Sys: attr})
	if err != nil {
		return 0, &fs.PathError{Op: "start", Path: path, Err: err}
	}
	return pid, nil
}

// credential is the image's user; where only one id is mapped, it is that one.
func credential(c *Container) *syscall.Credential {
	if c.IDs.User && c.IDs.Count <= 1 {
		return &syscall.Credential{NoSetGroups: true}
	}
	out := &syscall.Credential{Uid: uint32(c.User.UID), Gid: uint32(c.User.GID)}
	for _, g := range c.User.Groups {
		out.Groups = append(out.Groups, uint32(g))
	}
	return out
}

// confine binds the calling thread, which starts nothing but the program.
func confine(c *Container) error {
	if c.Limits.Processes > 0 {
		limit := unix.Rlimit{Cur: c.Limits.Processes, Max: c.Limits.Processes}
		if err := unix.Prlimit(0, unix.RLIMIT_NPROC, &limit, nil); err != nil && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("limit processes: %w", err)
		}
	}
	// The umask of a server is its own affair.
	unix.Umask(0o022)
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	if err := applyScope(); err != nil {
		return err
	}
	if !c.Filter {
		return nil
	}
	return applyFilter()
}

// look finds a program by the container's PATH; we are in its root by now.
func look(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, nil
	}
	why := &fs.PathError{Op: "start", Path: name, Err: fs.ErrNotExist}
	for _, v := range env {
		list, ok := strings.CutPrefix(v, "PATH=")
		if !ok {
			continue
		}
		for _, d := range filepath.SplitList(list) {
			full := filepath.Join(dir, d, name)
			if filepath.IsAbs(d) {
				full = filepath.Join(d, name)
			}
			st, err := os.Stat(full)
			switch {
			case err != nil || !st.Mode().IsRegular():
			case st.Mode()&0o111 != 0:
				return full, nil
			default:
				why = &fs.PathError{Op: "start", Path: full, Err: fs.ErrPermission}
			}
		}
	}
	return "", why
}
