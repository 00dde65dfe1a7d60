package torchserve

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	engine "tategu/internal/torchserve"
)

// Watch measures the machine every so often, at once first, until ctx is done: what
// system metrics of TorchServe are. every = 0 measures nothing.
func (m *Metrics) Watch(ctx context.Context, every time.Duration) error {
	if m == nil || every <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	var before cpuTimes
	for {
		before = m.measure(before)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// cpuTimes are what the kernel counts, in its ticks.
type cpuTimes struct{ busy, all uint64 }

func (m *Metrics) measure(before cpuTimes) cpuTimes {
	host := engine.Pair{Name: "Level", Value: "Host"}
	now := before
	if text, err := os.ReadFile("/proc/stat"); err == nil {
		now = readCPU(string(text))
		if d := now.all - before.all; now.all > before.all {
			m.count("CPUUtilization", 100*float64(now.busy-before.busy)/float64(d), host)
		}
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if total, free := readMemory(string(text)); total > 0 {
			const mb = 1024 // kB
			m.count("MemoryUsed", (total-free)/mb, host)
			m.count("MemoryAvailable", free/mb, host)
			m.count("MemoryUtilization", 100*(total-free)/total, host)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs("/", &fs); err == nil && fs.Blocks > 0 {
		const gb = 1 << 30
		block := float64(fs.Bsize)
		used, free := float64(fs.Blocks-fs.Bfree)*block, float64(fs.Bavail)*block
		m.count("DiskUsage", used/gb, host)
		m.count("DiskAvailable", free/gb, host)
		m.count("DiskUtilization", 100*used/(used+free), host)
	}
	return now
}

// readCPU sums up the first line of /proc/stat.
func readCPU(text string) cpuTimes {
	line, _, _ := strings.Cut(text, "\n")
	var t cpuTimes
	for i, f := range strings.Fields(line) {
		n, err := strconv.ParseUint(f, 10, 64)
		if i == 0 || i > 8 || err != nil { // "cpu"; guests' time is in user's
			continue
		}
		t.all += n
		if i != 4 && i != 5 { // idle, iowait
			t.busy += n
		}
	}
	return t
}

// readMemory gives MemTotal and MemAvailable of /proc/meminfo in kB.
func readMemory(text string) (total, free float64) {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil {
			continue
		}
		switch f[0] {
		case "MemTotal:":
			total = n
		case "MemAvailable:":
			free = n
		}
	}
	return total, free
}
