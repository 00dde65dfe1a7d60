package torchserve

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// snapshotSuffix ends the names of snapshots; files that are being written have another.
const snapshotSuffix = ".cfg"

// LastSnapshot is the path of the snapshot in a folder that was written last, "" where
// there is none. It is a configuration file for ReadProperties.
func LastSnapshot(folder string) (string, error) {
	entries, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	last, at := "", time.Time{}
	for _, e := range entries { // by name, which begins with the time
		if !e.Type().IsRegular() || !strings.HasSuffix(e.Name(), snapshotSuffix) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue // removed just now
		}
		if err != nil {
			return "", err
		}
		if !info.ModTime().Before(at) {
			last, at = e.Name(), info.ModTime()
		}
	}
	if last == "" {
		return "", nil
	}
	return filepath.Join(folder, last), nil
}
