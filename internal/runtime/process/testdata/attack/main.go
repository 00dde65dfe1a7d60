// Command attack tries to get out of a container, one way a run. It ends with 0
// and a line "refused: ..." when the way is closed, and with 1 when it is open.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	attacks := map[string]func(args []string) error{
		"read":   func(a []string) error { _, err := os.ReadFile(a[0]); return err },
		"follow": follow,
		"write": func(a []string) error {
			f, err := os.OpenFile(a[0], os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString(a[1])
			return err
		},
		"create": func(a []string) error { return os.WriteFile(a[0], nil, 0o600) },
		"ptrace": func([]string) error { return unix.PtraceAttach(1) },
		"vmread": func([]string) error {
			b := make([]byte, 8)
			local := []unix.Iovec{{Base: &b[0], Len: 8}}
			_, err := unix.ProcessVMReadv(1, local, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}, 0)
			return err
		},
		"killinit": killInit,
		"kill":     func(a []string) error { pid, _ := strconv.Atoi(a[0]); return unix.Kill(pid, unix.SIGKILL) },
		"mount":    func([]string) error { return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "") },
		"bind":     func([]string) error { return unix.Mount("/bin", "/mnt", "", unix.MS_BIND, "") },
		"remount":  func(a []string) error { return unix.Mount("", a[0], "", unix.MS_REMOUNT|unix.MS_BIND, "") },
		"unmount":  func(a []string) error { return unix.Unmount(a[0], unix.MNT_DETACH) },
		"pivot":    func([]string) error { return unix.PivotRoot("/mnt", "/mnt") },
		"chroot":   func([]string) error { return unix.Chroot("/mnt") },
		"unshare":  func([]string) error { return unix.Unshare(unix.CLONE_NEWNS) },
		"userns": func([]string) error {
			cmd := exec.Command("/attack", "nothing")
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}
			return cmd.Run()
		},
		"setns": func([]string) error {
			fd, err := unix.Open("/proc/self/ns/mnt", unix.O_RDONLY, 0)
			if err != nil {
				return err
			}
			return unix.Setns(fd, 0)
		},
		"mknod": func([]string) error { return unix.Mknod("/disk", unix.S_IFBLK|0o600, int(unix.Mkdev(254, 0))) },
		"keyctl": func([]string) error {
			_, err := unix.KeyctlGetKeyringID(unix.KEY_SPEC_USER_SESSION_KEYRING, true)
			return err
		},
		"bpf": func([]string) error { return call(unix.SYS_BPF, 0, 0, 0) },
		"perf": func([]string) error {
			_, err := unix.PerfEventOpen(&unix.PerfEventAttr{Size: 112}, 0, -1, -1, 0)
			return err
		},
		"module":    func([]string) error { return unix.FinitModule(0, "", 0) },
		"reboot":    func([]string) error { return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF) },
		"kexec":     func([]string) error { return call(unix.SYS_KEXEC_LOAD, 0, 0, 0) },
		"clock":     func([]string) error { return unix.Settimeofday(&unix.Timeval{Sec: 1}) },
		"uring":     func([]string) error { return call(unix.SYS_IO_URING_SETUP, 1, 0, 0) },
		"handle":    openByHandle,
		"userfault": func([]string) error { return call(unix.SYS_USERFAULTFD, 0, 0, 0) },
		"hostname":  func([]string) error { return unix.Sethostname([]byte("gotcha")) },
		"rawsocket": func([]string) error {
			_, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
			return err
		},
		"setuid":   setuid,
		"hardlink": func(a []string) error { return os.Link(a[0], a[1]) },
		"abstract": func(a []string) error { _, err := net.Dial("unix", "@"+a[0]); return err },
		"environs": environs,
		"operator": operator,
		"forkbomb": forkBomb,
		"memory":   memory,
		"nothing":  func([]string) error { return nil },
		"euid":     func([]string) error { fmt.Println(os.Geteuid()); return nil },
		"rlimit": func([]string) error {
			return unix.Setrlimit(unix.RLIMIT_NPROC, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY})
		},
		"devices":    devices,
		"dial":       func(a []string) error { _, err := net.Dial("tcp", a[0]); return err },
		"interfaces": interfaces,
		"talk":       talk,
		"tokens":     tokens,
		"token":      token,
		"own":        own,
	}
	err := attacks[os.Args[1]](os.Args[2:])
	if err == nil {
		fmt.Println("OPEN:", os.Args[1:])
		os.Exit(1)
	}
	fmt.Println("refused:", err)
}

// follow looks behind every link of a directory.
func follow(args []string) error {
	entries, err := os.ReadDir(args[0])
	if err != nil {
		return err
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(args[0], e.Name())); err == nil {
			fmt.Println(to)
			return nil
		}
		if _, err := os.Stat(filepath.Join(args[0], e.Name())); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%d links lead nowhere", len(entries))
}

func call(number, a, b, c uintptr) error {
	if _, _, errno := unix.Syscall(number, a, b, c); errno != 0 {
		return errno
	}
	return nil
}

// killInit sends the first process what would end any other.
func killInit([]string) error {
	for _, s := range []syscall.Signal{unix.SIGKILL, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGSTOP} {
		_ = unix.Kill(1, s)
	}
	time.Sleep(300 * time.Millisecond)
	return errors.New("it lives, and so do I")
}

// openByHandle asks for the root of the disk by its number, as the classic escape does.
func openByHandle([]string) error {
	fd, err := unix.Open("/etc/hosts", unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	_, err = unix.OpenByHandleAt(fd, unix.NewFileHandle(1, []byte{2, 0, 0, 0, 0, 0, 0, 0}), unix.O_RDONLY)
	return err
}

// setuid runs a program of root's with the setuid bit.
func setuid(args []string) error {
	out, err := exec.Command(args[0], "euid").Output()
	if err != nil && len(out) == 0 {
		return err
	}
	if strings.HasPrefix(string(out), "0\n") {
		return nil
	}
	return fmt.Errorf("it ran as %q", strings.TrimSpace(string(out)))
}

// operator calls the server without a token; it says whom it takes us for.
func operator(args []string) error {
	c, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		return err
	}
	if string(b[:n]) == "operator" {
		return nil
	}
	return fmt.Errorf("we are %s", b[:n])
}

// environs looks for what another task was given.
func environs(args []string) error {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && bytes.Contains(b, []byte(args[0])) {
			return nil
		}
	}
	return fmt.Errorf("not in %d environments", len(files))
}

// devices looks for anything beyond the harmless ones.
func devices([]string) error {
	harmless := map[string]bool{"null": true, "zero": true, "full": true, "random": true, "urandom": true, "tty": true, "ptmx": true}
	err := filepath.Walk("/dev", func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode()&os.ModeDevice != 0 && !harmless[filepath.Base(path)] {
			return fmt.Errorf("found %s", path)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
		return nil
	}
	return errors.New("no such device")
}

// forkBomb starts processes until it may not.
func forkBomb([]string) error {
	for i := range 20000 {
		pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if errno != 0 {
			return fmt.Errorf("after %d: %w", i, errno)
		}
		if pid == 0 {
			for {
				unix.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
			}
		}
	}
	return nil
}

// memory takes a gigabyte.
func memory([]string) error {
	for i := range 1024 {
		b, err := unix.Mmap(-1, 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return err
		}
		for p := uintptr(0); p < 1<<20; p += 4096 {
			*(*byte)(unsafe.Add(unsafe.Pointer(&b[0]), p)) = byte(i)
		}
	}
	return nil
}
