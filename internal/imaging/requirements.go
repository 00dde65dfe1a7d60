package imaging

import (
	"os"
	"path/filepath"

	"tategu/internal/runtime"
)

// ReadRequirements reads a requirements file of this machine, and those that it
// includes, as runtime.ReadRequirements does.
func ReadRequirements(file string) ([]string, error) {
	return runtime.ReadRequirements(filepath.ToSlash(file), func(name string) (string, error) {
		text, err := os.ReadFile(filepath.FromSlash(name))
		return string(text), err
	})
}
