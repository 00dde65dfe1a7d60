package box

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCgroupV2 checks what is written where, on a copy of the hierarchy's layout:
// the machine that the tests run on has the one version or the other.
func TestCgroupV2(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	self := filepath.Join(mount, "self")
	for name, text := range map[string]string{"cgroup.controllers": "cpuset cpu io memory pids", "self": "0::/server.service\n"} {
		if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := newCgroups(mount, self, "tategu-x")
	group, err := c.Make("w", Ask{Cores: 1.5, Memory: 64 << 20, Processes: 10})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(mount, "server.service", "tategu-x", "w")
	if group.V2 != dir || len(group.V1) > 0 || group.Memory != filepath.Join(dir, "memory.events") {
		t.Errorf("group %+v", group)
	}
	for name, want := range map[string]string{
		"w/memory.max": "67108864", "w/memory.swap.max": "0", "w/cpu.max": "150000 100000", "w/pids.max": "10",
		"cgroup.subtree_control": "+memory +cpu +pids", "../cgroup.subtree_control": "+memory +cpu +pids",
	} {
		if b, err := os.ReadFile(filepath.Join(filepath.Dir(dir), name)); err != nil || string(b) != want {
			t.Errorf("%s = %q, %v; want %q", name, b, err, want)
		}
	}
	if err := os.WriteFile(group.Memory, []byte("low 0\nhigh 0\nmax 9\noom 2\noom_kill 3\noom_group_kill 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, ok := OpenOOM(group).Count(); !ok || n != 3 {
		t.Errorf("Count = %d, %v; want 3", n, ok)
	}
}

// TestCgroupV1 asks for limits where only one controller is there: it limits, and
// the error names the others.
func TestCgroupV1(t *testing.T) {
	t.Parallel()
	mount := t.TempDir()
	self := filepath.Join(mount, "self")
	if err := os.WriteFile(self, []byte("4:memory:/a\n0::/\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	group, err := newCgroups(mount, self, "tategu-x").Make("w", Ask{Cores: 1, Memory: 1 << 20, Processes: 5})
	if err == nil || !strings.Contains(err.Error(), "cpu") || !strings.Contains(err.Error(), "pids") || strings.Contains(err.Error(), "memory") {
		t.Errorf("Make = %v", err)
	}
	dir := filepath.Join(mount, "memory", "a", "tategu-x", "w")
	if len(group.V1) != 1 || group.V1[0] != dir {
		t.Errorf("group %+v", group)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "memory.limit_in_bytes")); err != nil || string(b) != "1048576" {
		t.Errorf("limit %q, %v", b, err)
	}
	if none, err := newCgroups(mount, self, "tategu-x").Make("w", Ask{}); err != nil || len(none.V1) > 0 || none.V2 != "" {
		t.Errorf("nothing asked for: %+v, %v", none, err)
	}
}

// TestLow: a group that gives way is below one that does, with either version.
func TestLow(t *testing.T) {
	t.Parallel()
	for version, c := range map[string]struct{ self, dir, controllers, file, want string }{
		"v1": {"4:cpu:/a\n", "cpu/a/tategu-x-low", "", "cpu.shares", "102"},
		"v2": {"0::/a\n", "a/tategu-x-low", "cpu memory pids", "cpu.weight", "10"},
	} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			mount := t.TempDir()
			self := filepath.Join(mount, "self")
			for name, text := range map[string]string{"self": c.self, "cgroup.controllers": c.controllers} {
				if err := os.WriteFile(filepath.Join(mount, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := newCgroups(mount, self, "tategu-x").Make("w", Ask{Low: true}); err != nil {
				t.Fatal(err)
			}
			for _, dir := range []string{"", "w"} {
				if b, err := os.ReadFile(filepath.Join(mount, c.dir, dir, c.file)); err != nil || string(b) != c.want {
					t.Errorf("%s/%s = %q, %v; want %q", dir, c.file, b, err, c.want)
				}
			}
		})
	}
}
