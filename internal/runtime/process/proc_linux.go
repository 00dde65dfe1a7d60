package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"tategu/internal/runtime"
	"tategu/internal/runtime/workload"

	"golang.org/x/sys/unix"
)

// stat is what /proc/PID/stat says of a process (proc_pid_stat(5)).
type stat struct {
	state   byte
	parent  int
	session int
	start   string // field 22, clock ticks since boot
}

func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The command name may hold spaces and brackets; the fields follow the last one.
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 20 {
		return stat{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	parent, err := strconv.Atoi(fields[1])
	if err != nil {
		return stat{}, err
	}
	session, err := strconv.Atoi(fields[3])
	if err != nil {
		return stat{}, err
	}
	return stat{state: fields[0][0], parent: parent, session: session, start: fields[19]}, nil
}

func startTime(pid int) (string, error) {
	s, err := readStat(pid)
	return s.start, err
}

// alive reports whether the process that started then still runs.
func alive(pid int, start string) bool {
	s, err := readStat(pid)
	return err == nil && s.start == start && s.state != 'Z' && s.state != 'X'
}

func pids() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// killTree kills every descendant of ours: the wrapper is the parent of orphans,
// so no program escapes by daemonising.
func killTree(group int) {
	_ = syscall.Kill(-group, syscall.SIGKILL) // gone already is fine
	children := map[int][]int{}
	for _, pid := range pids() {
		if s, err := readStat(pid); err == nil && s.state != 'Z' {
			children[s.parent] = append(children[s.parent], pid)
		}
	}
	for next := children[os.Getpid()]; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
	}
}

// killStrays ends what a wrapper that was itself killed left behind: members of
// its session, and whatever carries the workload's mark in its environment.
func killStrays(wrapper int, dir string) {
	mark := []byte("\x00" + dirVariable + "=" + dir + "\x00")
	for _, pid := range pids() {
		s, err := readStat(pid)
		if err != nil || pid == os.Getpid() {
			continue
		}
		env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if s.session == wrapper || err == nil && bytes.Contains(append([]byte{0}, env...), mark) {
			_ = syscall.Kill(pid, syscall.SIGKILL) // gone already is fine
		}
	}
}

// waitExit returns once the process is gone; it need not be our child.
func waitExit(ctx context.Context, pid int, start string) error {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	if err != nil {
		return pollExit(ctx, pid, start)
	}
	f := os.NewFile(uintptr(fd), "pidfd")
	defer func() { _ = f.Close() }() // nothing was written
	if !alive(pid, start) {
		return nil // the number may be somebody else's by now
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := f.SyscallConn()
	if err != nil {
		return pollExit(ctx, pid, start)
	}
	// A pidfd becomes readable when its process ends.
	err = raw.Read(func(fd uintptr) bool {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err == nil && n > 0
	})
	if err != nil && ctx.Err() == nil {
		return pollExit(ctx, pid, start)
	}
	return ctx.Err()
}

func becomeReaper() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// oomKills counts processes that the kernel killed for memory since boot.
func oomKills() int {
	b, err := os.ReadFile("/proc/vmstat")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), "\noom_kill ")
	if !ok {
		return 0
	}
	value, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.Atoi(value)
	if err != nil {
		return 0
	}
	return n
}

// inventory counts what the machine, or the container we run in, has.
func inventory(gpus int) runtime.Resources {
	total := runtime.Resources{Cores: cores(), GPUs: gpus}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		total.MemoryBytes = int64(info.Totalram) * int64(info.Unit)
	}
	for _, file := range []string{"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		b, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if limit, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && limit < total.MemoryBytes {
			total.MemoryBytes = limit
		}
	}
	if gpus == 0 {
		if found, err := filepath.Glob("/proc/driver/nvidia/gpus/*"); err == nil {
			total.GPUs = len(found)
		}
	}
	return total
}

// mountMode says how programs get their /gcs.
type mountMode struct {
	flags uintptr // for the clone of the wrapper; 0 = no mounts
	say   string
}

// sysProcAttr starts the wrapper in a session of its own, and where /gcs is
// mounted in a mount namespace of its own.
func (m mountMode) sysProcAttr() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Cloneflags: m.flags}
	if m.flags&syscall.CLONE_NEWUSER != 0 {
		// Only id 0 keeps its capabilities over the exec of the wrapper.
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return attr
}

// probeMounts tries the real thing once, with our own binary.
func probeMounts(cfg Config) mountMode {
	hook := mountMode{say: "/gcs by a Python hook and rewritten arguments (no mount namespaces here)"}
	if cfg.NoMounts {
		return mountMode{say: "/gcs by a Python hook and rewritten arguments (as configured)"}
	}
	mode := mountMode{flags: syscall.CLONE_NEWNS, say: "/gcs is a bind mount"}
	if os.Geteuid() != 0 {
		mode = mountMode{flags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER, say: "/gcs is a bind mount in a user namespace"}
	}
	dir, err := os.MkdirTemp(cfg.Dir, ".probe-")
	if err != nil {
		return hook
	}
	defer func() { _ = workload.RemoveAll(dir) }() // a leftover is removed at the next start
	if err := os.MkdirAll(filepath.Join(dir, dirGCS, probeFile), 0o700); err != nil {
		return hook
	}
	attr := &os.ProcAttr{
		Dir: dir, Env: []string{wrapperMark + "=1"}, Files: []*os.File{nil, nil, nil}, Sys: mode.sysProcAttr(),
	}
	p, err := os.StartProcess(cfg.Self, []string{cfg.Self, Verb, "--probe", dir}, attr)
	if err != nil {
		return hook
	}
	state, err := p.Wait()
	if err != nil || !state.Success() {
		return hook
	}
	return mode
}

const probeFile = "probe"

// probe is the child of probeMounts.
func probe(dir string) error {
	if err := mountGCS(dir, filepath.Join(dir, dirGCS)); err != nil {
		return err
	}
	if st, err := os.Stat(filepath.Join(runtime.GCSRoot, probeFile)); err != nil || !st.IsDir() {
		return errors.New("the mount does not show")
	}
	return nil
}

// mountGCS makes gcs visible as /gcs in our own mount namespace. Where / has no
// such directory, a new root with the same entries and that one is built; the
// machine's own root is never changed.
func mountGCS(dir, gcs string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("leave the mounts of the machine: %w", err)
	}
	if st, err := os.Stat(runtime.GCSRoot); err == nil && st.IsDir() {
		return unix.Mount(gcs, runtime.GCSRoot, "", unix.MS_BIND|unix.MS_REC, "")
	}
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	if err := copyRoot(root); err != nil {
		return err
	}
	target := filepath.Join(root, runtime.GCSRoot)
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(gcs, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", runtime.GCSRoot, err)
	}
	return enterRoot(root)
}

// copyRoot shows every entry of / under root.
func copyRoot(root string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := "/"+e.Name(), filepath.Join(root, e.Name())
		switch typ := e.Type(); {
		case typ&os.ModeSymlink != 0:
			link, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, to); err != nil {
				return err
			}
			continue
		case typ.IsDir():
			if err := os.Mkdir(to, 0o755); err != nil {
				return err
			}
		case typ.IsRegular():
			if err := os.WriteFile(to, nil, 0o644); err != nil {
				return err
			}
		default:
			continue // sockets and devices do not live in /
		}
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
		}
	}
	return nil
}

func enterRoot(root string) error {
	old := filepath.Join(root, ".old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Remove("/.old")
}
