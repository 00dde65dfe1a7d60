package box

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
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
	if c.Low {
		sayGiveWay(c.Cgroup)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("hide the wrapper: %w", err)
	}
	group, err := Join(c.Cgroup)
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

// Join puts the calling thread in the version 1 groups; the program inherits
// them. Version 2 takes the program at its start.
func Join(c Cgroup) (*os.File, error) {
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
	path, err := Look(command[0], c.Dir, env) // we are in its root by now
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
		return 0, &fs.PathError{Op: OpStart, Path: path, Err: err}
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
