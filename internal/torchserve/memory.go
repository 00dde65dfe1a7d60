package torchserve

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// freeMemory is how many bytes may still be taken, of the machine and of each control
// group that we are in; -1 = nobody says, as on systems without /proc.
func freeMemory(root string) int64 {
	free := int64(-1)
	if n, ok := meminfo(filepath.Join(root, "proc/meminfo")); ok {
		free = n
	}
	within := func(limit, used, stat, unused string) {
		most, ok := number(limit)
		now, ok2 := number(used)
		if !ok || !ok2 {
			return // there is no limit
		}
		left := max(most-now+statOf(stat, unused), 0)
		if free < 0 || left < free {
			free = left
		}
	}
	groups := filepath.Join(root, "sys/fs/cgroup")
	for dir := ownGroup(filepath.Join(root, "proc/self/cgroup")); ; dir = filepath.Dir(dir) {
		at := filepath.Join(groups, dir)
		within(at+"/memory.max", at+"/memory.current", at+"/memory.stat", "inactive_file")
		if dir == "/" || dir == "." {
			break
		}
	}
	at := filepath.Join(groups, "memory")
	within(at+"/memory.limit_in_bytes", at+"/memory.usage_in_bytes", at+"/memory.stat", "total_inactive_file")
	return free
}

// ownGroup is our control group of version 2, below the root of what we see.
func ownGroup(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return "/"
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Clean("/" + path)
		}
	}
	return "/"
}

func number(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil && n >= 0 && n <= mostBytes
}

// mostBytes is more than any machine has; a group without a limit says so in version 1.
const mostBytes = 1 << 60

// statOf is one line of a file of names and numbers; 0 = it has none.
func statOf(file, name string) int64 {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64) // 0 = none
			return min(max(n, 0), mostBytes)
		}
	}
	return 0
}

// meminfo is what the machine can still give, in bytes.
func meminfo(file string) (int64, bool) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) >= 2 && f[0] == "MemAvailable:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err == nil && n >= 0 && n <= mostBytes>>10
		}
	}
	return 0, false
}
