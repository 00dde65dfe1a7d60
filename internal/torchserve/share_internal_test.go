package torchserve

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestDivide(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		cores   int
		workers []int
		most    int
		want    []int
	}{
		{2, nil, 0, []int{}},
		{2, []int{1}, 0, []int{2}},
		{2, []int{1}, 1, []int{1}},
		{2, []int{1, 1}, 0, []int{1, 1}},
		{2, []int{4}, 0, []int{1}},
		{8, []int{1, 1, 1}, 0, []int{3, 3, 2}},
		{8, []int{2, 1}, 0, []int{2, 4}},
		{8, []int{3, 1}, 0, []int{1, 5}},
		{8, []int{3}, 0, []int{2}},
		{8, []int{1, 1}, 3, []int{3, 3}},
		{1, []int{1, 1, 1}, 0, []int{1, 1, 1}},
	} {
		got := divide(tt.cores, tt.workers, tt.most)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%d cores, workers %v: %v threads, want %v", tt.cores, tt.workers, got, tt.want)
		}
	}
}

// TestDivideWithin: all threads together are no more than the cores, unless one for each
// worker is.
func TestDivideWithin(t *testing.T) {
	t.Parallel()
	for cores := 1; cores <= 16; cores++ {
		for a := 1; a <= 9; a++ {
			for b := 1; b <= 9; b++ {
				threads := divide(cores, []int{a, b}, 0)
				if sum := a*threads[0] + b*threads[1]; sum > max(cores, a+b) || cores-sum >= min(a, b) {
					t.Errorf("%d cores, %d and %d workers: %v threads", cores, a, b, threads)
				}
			}
		}
	}
}

func TestMostThreads(t *testing.T) {
	t.Parallel()
	for env, want := range map[string]int{"": 0, "OMP_NUM_THREADS=3": 3, "OMP_NUM_THREADS=4,2": 4, "OMP_NUM_THREADS=x": 0, "OMP_NUM_THREADS=-1": 0} {
		s := &Server{cfg: Config{Environment: []string{"A=b", env}}}
		if got := s.mostThreads(); got != want {
			t.Errorf("%q: %d, want %d", env, got, want)
		}
	}
}

func TestFreeMemory(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nobody says": {nil, -1},
		"the machine": {map[string]string{"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    5 kB\n"}, 5 << 10},
		"no limit": {map[string]string{
			"proc/meminfo": "MemAvailable: 5 kB\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "100\n",
		}, 5 << 10},
		"a container": {map[string]string{
			"proc/meminfo": "MemAvailable: 5 kB\n", "sys/fs/cgroup/memory.max": "3000\n", "sys/fs/cgroup/memory.current": "2500\n", "sys/fs/cgroup/memory.stat": "anon 7\ninactive_file 400\n",
		}, 900},
		"a group above ours": {map[string]string{
			"proc/meminfo": "MemAvailable: 5 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/memory.max": "3000\n", "sys/fs/cgroup/a/memory.current": "2900\n",
			"sys/fs/cgroup/a/b/memory.max": "2000\n", "sys/fs/cgroup/a/b/memory.current": "10\n",
		}, 100},
		"version 1": {map[string]string{
			"proc/meminfo": "MemAvailable: 5 kB\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "1200\n",
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := t.TempDir()
			for file, text := range tt.files {
				path := filepath.Join(root, file)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := freeMemory(root); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}

// FuzzFreeMemory: whatever these files say, it is no negative number but -1.
func FuzzFreeMemory(f *testing.F) {
	f.Add("MemAvailable: 5 kB\n", "0::/a\n", "10", "3", "inactive_file 2\n")
	f.Fuzz(func(t *testing.T, info, group, most, used, stat string) {
		root := t.TempDir()
		for file, text := range map[string]string{"proc/meminfo": info, "proc/self/cgroup": group, "sys/fs/cgroup/memory.max": most, "sys/fs/cgroup/memory.current": used, "sys/fs/cgroup/memory.stat": stat} {
			path := filepath.Join(root, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := freeMemory(root); got < -1 {
			t.Errorf("%d bytes are free", got)
		}
	})
}
