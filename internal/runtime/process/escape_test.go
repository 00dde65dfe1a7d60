package process_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"tategu/internal/resource"
	"tategu/internal/runtime"
	"tategu/internal/runtime/process"
	"tategu/internal/runtime/runtimetest"
)

// attackVariable names the attacking program for who cannot build it.
const attackVariable = "TATEGU_TEST_ATTACK"

// attacker is a static program; images from scratch hold nothing else.
var attacker = sync.OnceValues(func() ([]byte, error) {
	if made := os.Getenv(attackVariable); made != "" {
		return os.ReadFile(made)
	}
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "attack"), "./testdata/attack")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the attacking program: %w: %s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "attack"))
})

// scratch is an image of one static program, with a setuid copy of it.
func scratch(t *testing.T, user string) runtime.Image {
	t.Helper()
	b, err := attacker()
	if err != nil {
		t.Skip(err)
	}
	setuid := file("setuid", b)
	setuid.Mode = 0o4755
	return image("scratch:"+user, runtime.ImageConfig{Entrypoint: []string{"/attack"}, User: user}, layer(t, file("attack", b), setuid, directory("mnt/", 0o755)))
}

// prison is a runtime with a workload of somebody else's in it.
type prison struct {
	*process.Runtime
	cfg    process.Config
	files  *runtimetest.Files
	secret string // a file beside the server's
	victim string // directory of another workload
}

func newPrison(t *testing.T) *prison {
	t.Helper()
	return newPrisonOf(t, &runtimetest.Credentials{})
}

func newPrisonOf(t *testing.T, credentials runtime.Credentials) *prison {
	t.Helper()
	kept := images{"scratch:root": scratch(t, ""), "scratch:user": scratch(t, "1234"), "shell:1": shell(t), "scratch:alone": scratch(t, ""), "shell:alone": shell(t)}
	p := &prison{cfg: config(t), files: runtimetest.NewFiles(map[string]string{})}
	p.cfg.ImageStore, p.cfg.Files, p.cfg.Credentials, p.cfg.Processes = kept, p.files, credentials, 64
	p.cfg.Images = []runtime.ImageRule{{Match: "*:alone", Image: true, Network: "none"}}
	t.Cleanup(func() { // overlays leave a directory that a plain user has to open before it can go
		if out, err := exec.Command("chmod", "-R", "u+rwx", p.cfg.Dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	p.Runtime = open(t, p.cfg)
	needContainers(t, p.Runtime)
	p.secret = filepath.Join(filepath.Dir(p.cfg.Dir), "operator.token")
	if err := os.WriteFile(p.secret, []byte("the secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	in, err := p.Start(t.Context(), runtime.Workload{ID: "victim", Project: "theirs", Image: "shell:1", Command: []string{"sh", "-c", "echo private > /tategu/work/file; echo up; sleep 1000"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := in.Stop(context.Background(), 0); err != nil {
			t.Error(err)
		}
	})
	p.victim = filepath.Join(p.cfg.Dir, "victim")
	await(t, func() bool { _, err := os.Stat(filepath.Join(p.victim, "work", "file")); return err == nil })
	return p
}

// attack runs one attempt and fails when it was not refused.
func (p *prison) attack(t *testing.T, image, name string, args ...string) runtime.Exit {
	t.Helper()
	id := strings.ReplaceAll(strings.ReplaceAll(t.Name(), "/", "-"), " ", "_")
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: id, Project: "mine", Image: image, Args: append([]string{name}, args...), Publish: true, Dirs: []string{"/gcs/bucket"}})
	if !exit.OK() || len(exit.Tail) == 0 || !strings.HasPrefix(exit.Tail[len(exit.Tail)-1], "refused: ") {
		t.Errorf("%s %v was not refused: %+v", name, args, exit)
	}
	return exit
}

// TestEscape tries to reach the machine, its other programs and the server's files.
func TestEscape(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	me := strconv.Itoa(os.Getpid())
	tests := map[string][]string{
		"key of the server":         {"read", p.secret},
		"key by the root of init":   {"read", "/proc/1/root" + p.secret},
		"key by the cwd of init":    {"read", "/proc/1/cwd/../../operator.token"},
		"own record":                {"read", "/proc/1/cwd/record.json"},
		"environment of init":       {"read", "/proc/1/environ"},
		"descriptors of init":       {"follow", "/proc/1/fd"},
		"memory of init":            {"read", "/proc/1/mem"},
		"trace init":                {"ptrace"},
		"memory of init by call":    {"vmread"},
		"end init":                  {"killinit"},
		"end a host process":        {"kill", me},
		"host process by proc":      {"read", "/proc/" + me + "/environ"},
		"file of another":           {"read", filepath.Join(p.victim, "work", "file")},
		"file of another from mine": {"read", "/tategu/work/../../victim/work/file"},
		"identity of another":       {"environs", "victim/theirs/"},
		"mount":                     {"mount"},
		"bind":                      {"bind"},
		"writable hosts":            {"remount", "/etc/hosts"},
		"uncover proc":              {"unmount", "/proc/sys"},
		"pivot":                     {"pivot"},
		"chroot":                    {"chroot"},
		"mount namespace":           {"unshare"},
		"user namespace":            {"userns"},
		"enter a namespace":         {"setns"},
		"make a disk":               {"mknod"},
		"find a device":             {"devices"},
		"kernel memory":             {"read", "/dev/mem"},
		"core pattern":              {"write", "/proc/sys/kernel/core_pattern", "|/attack"},
		"sysrq":                     {"write", "/proc/sysrq-trigger", "h"},
		"hosts of the machine":      {"write", "/etc/hosts", "127.0.0.1 x\n"},
		"kernel settings":           {"write", "/sys/kernel/mm/transparent_hugepage/enabled", "never"},
		"own limits":                {"write", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"},
		"new control group":         {"create", "/sys/fs/cgroup/x"},
		"key rings":                 {"keyctl"},
		"bpf":                       {"bpf"},
		"perf":                      {"perf"},
		"kernel module":             {"module"},
		"reboot":                    {"reboot"},
		"kexec":                     {"kexec"},
		"clock":                     {"clock"},
		"io_uring":                  {"uring"},
		"file handle":               {"handle"},
		"userfaultfd":               {"userfault"},
		"host name":                 {"hostname"},
		"raw socket":                {"rawsocket"},
		"raise a limit":             {"rlimit"},
		"hard link out":             {"hardlink", "/etc/hosts", "/gcs/bucket/x"},
	}
	for name, args := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.attack(t, "scratch:root", args[0], args[1:]...)
		})
	}
	t.Run("setuid", func(t *testing.T) {
		t.Parallel()
		if os.Geteuid() != 0 {
			t.Skip("a plain user has one id to give: every user of the image is its root")
		}
		p.attack(t, "scratch:user", "setuid", "/setuid")
	})
	t.Run("operator", func(t *testing.T) {
		t.Parallel()
		outside := process.FromContainer()
		if outside == nil {
			t.Skip("ids of containers are not their own here: their connections look like the operator's")
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				who := "operator"
				if outside(c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)) {
					who = "a container"
				}
				_, _ = c.Write([]byte(who))
				_ = c.Close()
			}
		}()
		if exit := p.attack(t, "scratch:root", "operator", l.Addr().String()); !strings.Contains(strings.Join(exit.Tail, ""), "we are a container") {
			t.Errorf("exit %+v", exit)
		}
	})
	t.Run("abstract socket", func(t *testing.T) {
		t.Parallel()
		name := fmt.Sprintf("tategu-test-%d", os.Getpid())
		l, err := net.Listen("unix", "@"+name)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		in, err := p.Find(t.Context(), "victim")
		if err != nil {
			t.Fatal(err)
		}
		if note := in.Status().Message; strings.Contains(note, "abstract sockets") {
			t.Skip(note)
		}
		p.attack(t, "scratch:root", "abstract", name)
	})
}

// TestEscapeByPublish: what a container leaves below /gcs is read by the server.
func TestEscapeByPublish(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	script := fmt.Sprintf("ln -s %s /gcs/bucket/absolute; ln -s ../../../../operator.token /gcs/bucket/relative; ln -s / /gcs/bucket/root; echo fine > /gcs/bucket/file; ln -s file /gcs/bucket/inside", p.secret)
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: "links", Image: "shell:1", Command: []string{"sh", "-c", script}, Publish: true, Dirs: []string{"/gcs/bucket"}})
	if !exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
	if got, want := strings.Join(p.files.Uploads(), " "), "gs://bucket/file gs://bucket/inside"; got != want {
		t.Errorf("published %q, want %q", got, want)
	}
}

// TestImageStays: what one container does to its image no other sees, and files
// that it makes do not belong to a user of this machine.
func TestImageStays(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	exit := runToEnd(t, p.Runtime, runtime.Workload{ID: "first", Image: "shell:1", Command: []string{"sh", "-c", "echo changed > /etc/group; rm -r /home; touch /tategu/work/mine"}})
	if !exit.OK() {
		t.Fatalf("exit %+v", exit)
	}
	exit = runToEnd(t, p.Runtime, runtime.Workload{ID: "second", Image: "shell:1", Command: []string{"sh", "-c", "cat /etc/group; ls /home"}})
	if got := strings.Join(exit.Tail, " "); !exit.OK() || !strings.Contains(got, "users") || !strings.Contains(got, "user") || strings.Contains(got, "changed") {
		t.Errorf("exit %+v", exit)
	}
	st, err := os.Stat(filepath.Join(p.cfg.Dir, "first", "work", "mine"))
	if err != nil {
		t.Fatal(err)
	}
	if uid := st.Sys().(*syscall.Stat_t).Uid; os.Geteuid() == 0 && uid == 0 {
		t.Errorf("the container's files belong to the machine's root")
	}
}

// TestLimits: a fork bomb stops at its limit, and memory too.
func TestLimits(t *testing.T) {
	t.Parallel()
	p := newPrison(t)
	victim, err := p.Find(t.Context(), "victim")
	if err != nil {
		t.Fatal(err)
	}
	exit := p.attack(t, "scratch:root", "forkbomb")
	if !strings.Contains(strings.Join(exit.Tail, " "), "resource temporarily unavailable") {
		t.Errorf("exit %+v", exit)
	}
	if note := victim.Status().Message; strings.Contains(note, "limits are not enforced") {
		t.Skip(note)
	}
	exit = runToEnd(t, p.Runtime, runtime.Workload{ID: "memory", Image: "scratch:root", Args: []string{"memory"}, Resources: runtime.Resources{MemoryBytes: 64 << 20}})
	if exit.Signal != "SIGKILL" || exit.Cause != resource.CauseResource || !strings.Contains(exit.Message, "more memory than it asked for") {
		t.Errorf("exit %+v", exit)
	}
	if left, err := filepath.Glob("/sys/fs/cgroup/memory/*/*/tategu-*/memory"); err != nil || len(left) > 0 {
		t.Errorf("control groups are left: %v, %v", left, err)
	}
}
