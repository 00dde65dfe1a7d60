package box

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroups makes control groups below the server's own, of version 1 or 2.
type Cgroups struct {
	mount string            // /sys/fs/cgroup
	own   map[string]string // controller ("" = unified) to our path in its hierarchy
	name  string            // of our directory there, one for each data directory
}

// NewCgroups finds where the server itself is.
func NewCgroups(name string) *Cgroups {
	return newCgroups("/sys/fs/cgroup", "/proc/self/cgroup", name)
}

func newCgroups(mount, self, name string) *Cgroups {
	c := &Cgroups{mount: mount, own: map[string]string{}, name: name}
	f, err := os.Open(self)
	if err != nil {
		return c
	}
	defer func() { _ = f.Close() }() // opened for reading
	for lines := bufio.NewScanner(f); lines.Scan(); {
		parts := strings.SplitN(lines.Text(), ":", 3)
		if len(parts) != 3 {
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			c.own[controller] = parts[2]
		}
	}
	return c
}

// Make limits a new group. What is refused is named by the error; the group it
// comes with limits the rest.
func (c *Cgroups) Make(id string, ask Ask) (Cgroup, error) {
	if ask == (Ask{}) {
		return Cgroup{}, nil
	}
	if b, err := os.ReadFile(filepath.Join(c.mount, "cgroup.controllers")); err == nil && strings.Contains(string(b), "memory") {
		return c.makeV2(id, ask)
	}
	return c.makeV1(id, ask)
}

// setting is a file of a controller and what is written there.
type setting struct {
	file, value string
	soft        bool // a kernel without it does the same or less
}

func (c *Cgroups) makeV1(id string, ask Ask) (Cgroup, error) {
	wanted := map[string][]setting{}
	if ask.Memory > 0 {
		limit := strconv.FormatInt(ask.Memory, 10)
		wanted["memory"] = []setting{{file: "memory.limit_in_bytes", value: limit}, {file: "memory.memsw.limit_in_bytes", value: limit, soft: true}}
	}
	if ask.Cores > 0 {
		wanted["cpu"] = []setting{{file: "cpu.cfs_period_us", value: strconv.Itoa(cpuPeriod)}, {file: "cpu.cfs_quota_us", value: quota(ask.Cores)}}
	}
	low := setting{file: "cpu.shares", value: "102"} // of 1024
	if ask.Low {
		wanted["cpu"] = append(wanted["cpu"], low)
	}
	if ask.Processes > 0 {
		wanted["pids"] = []setting{{file: "pids.max", value: strconv.Itoa(ask.Processes)}}
	}
	var group Cgroup
	var errs []error
	for _, controller := range []string{"memory", "cpu", "pids"} {
		settings, ok := wanted[controller]
		if !ok {
			continue
		}
		own, ok := c.own[controller]
		if !ok {
			errs = append(errs, fmt.Errorf("no %s controller", controller))
			continue
		}
		above := filepath.Join(c.mount, controller, own, c.parent(ask))
		dir := filepath.Join(above, id)
		var err error
		if controller == "cpu" && ask.Low {
			err = apply(above, []setting{low})
		}
		if err == nil {
			err = apply(dir, settings)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", controller, err))
			continue
		}
		group.V1 = append(group.V1, dir)
		group.Weighed = group.Weighed || controller == "cpu" && ask.Low
		if controller == "memory" {
			group.Memory = filepath.Join(dir, "memory.oom_control")
		}
	}
	return group, errors.Join(errs...)
}

func (c *Cgroups) makeV2(id string, ask Ask) (Cgroup, error) {
	base := filepath.Join(c.mount, c.own[""])
	// Controllers are handed down one level at a time. A group with processes of its
	// own cannot hand any down, unless it is the root.
	above := filepath.Join(base, c.parent(ask))
	for _, dir := range []string{base, above} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return Cgroup{}, err
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory +cpu +pids"), 0o644); err != nil {
			return Cgroup{}, err
		}
	}
	var settings []setting
	if ask.Low {
		settings = []setting{{file: "cpu.weight", value: "10"}} // of 100
		if err := apply(above, settings); err != nil {
			return Cgroup{}, err
		}
	}
	if ask.Memory > 0 {
		settings = append(settings, setting{file: "memory.max", value: strconv.FormatInt(ask.Memory, 10)}, setting{file: "memory.swap.max", value: "0", soft: true})
	}
	if ask.Cores > 0 {
		settings = append(settings, setting{file: "cpu.max", value: quota(ask.Cores) + " " + strconv.Itoa(cpuPeriod)})
	}
	if ask.Processes > 0 {
		settings = append(settings, setting{file: "pids.max", value: strconv.Itoa(ask.Processes)})
	}
	dir := filepath.Join(above, id)
	if err := apply(dir, settings); err != nil {
		return Cgroup{}, err
	}
	return Cgroup{V2: dir, Memory: filepath.Join(dir, "memory.events"), Weighed: ask.Low}, nil
}

// lowSuffix ends the name of our directory for groups that give way. Groups compete
// with those beside them alone, so that one below an ordinary group would give way to
// nothing but its neighbours there.
const lowSuffix = "-low"

func (c *Cgroups) parent(ask Ask) string {
	if ask.Low {
		return c.name + lowSuffix
	}
	return c.name
}

const cpuPeriod = 100_000 // microseconds

func quota(cores float64) string { return strconv.Itoa(max(1000, int(cores*cpuPeriod))) }

func apply(dir string, settings []setting) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, s := range settings {
		if err := os.WriteFile(filepath.Join(dir, s.file), []byte(s.value), 0o644); err != nil && !s.soft {
			_ = os.Remove(dir) // the write error is the one to tell
			return err
		}
	}
	return nil
}

// Remove takes the groups of an ended container away; gone already is fine.
func (c Cgroup) Remove() error {
	var errs []error
	for _, dir := range append([]string{c.V2}, c.V1...) {
		if dir == "" {
			continue
		}
		if err := removeGroup(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the control group %s: %w", dir, err))
		}
	}
	return errors.Join(errs...)
}

// removeGroup waits a little for the wrapper, a thread of which may still be there
// when it has said that the program is not.
func removeGroup(dir string) (err error) {
	const pause = 20 * time.Millisecond
	for range 25 {
		if err = unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
			return err
		}
		<-time.After(pause)
	}
	return err
}

// Tidy removes our own directories where nothing runs any more.
func (c *Cgroups) Tidy() {
	for _, controller := range []string{"memory", "cpu", "pids", ""} {
		own, ok := c.own[controller]
		if !ok {
			continue
		}
		for _, ask := range []Ask{{}, {Low: true}} {
			_ = unix.Rmdir(filepath.Join(c.mount, controller, own, c.parent(ask))) // in use, or never made
		}
	}
}

// OOMCounter counts what the kernel killed in a group for want of memory. It
// stays readable after the root directory has changed.
type OOMCounter struct{ file *os.File }

// OpenOOM opens the counter of a group; one without memory limit counts nothing.
func OpenOOM(c Cgroup) OOMCounter {
	if c.Memory == "" {
		return OOMCounter{}
	}
	f, err := os.Open(c.Memory)
	if err != nil {
		return OOMCounter{}
	}
	return OOMCounter{f}
}

// Count gives the kills so far, and whether they are counted at all.
func (o OOMCounter) Count() (n int, ok bool) {
	if o.file == nil {
		return 0, false
	}
	b := make([]byte, 4096)
	got, err := o.file.ReadAt(b, 0)
	if got == 0 && err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(b[:got])) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, err := strconv.Atoi(value)
			return n, err == nil
		}
	}
	return 0, false
}
