//go:build unix && !linux && !darwin

package modelcache

import "os"

// swap exchanges two directories; for a moment there is none.
func swap(a, b string) error {
	away := a + ".old"
	if err := os.Rename(b, away); err != nil {
		return err
	}
	if err := os.Rename(a, b); err != nil {
		return err
	}
	return os.Rename(away, a)
}
