package inventory

import (
	"os"
	"path/filepath"
	"testing"
)

func TestControlGroups(t *testing.T) {
	for name, tc := range map[string]struct {
		files  map[string]string
		cores  float64
		memory int64
	}{
		"none":       {cores: 8, memory: 1 << 40},
		"version 2":  {files: map[string]string{"cpu.max": "150000 100000\n", "memory.max": "1073741824\n"}, cores: 1.5, memory: 1 << 30},
		"no limit 2": {files: map[string]string{"cpu.max": "max 100000\n", "memory.max": "max\n"}, cores: 8, memory: 1 << 40},
		"version 1": {files: map[string]string{
			"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n", "memory/memory.limit_in_bytes": "2147483648\n",
		}, cores: 4, memory: 2 << 30},
		"no limit 1": {files: map[string]string{
			"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n", "memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, cores: 8, memory: 1 << 40},
		"more than there is": {files: map[string]string{"cpu.max": "6400000 100000\n"}, cores: 8, memory: 1 << 40},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for file, text := range tc.files {
				if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(root, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := quota(root, 8); got != tc.cores {
				t.Errorf("%g cores, want %g", got, tc.cores)
			}
			if got := limited(root, 1<<40); got != tc.memory {
				t.Errorf("%d bytes, want %d", got, tc.memory)
			}
		})
	}
}
