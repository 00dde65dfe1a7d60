package workload

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"tategu/internal/resource"
	"tategu/internal/runtime"
)

// Mount is a directory of the machine and where a program sees it.
type Mount struct{ From, To string }

// Bind is a mount that a rule for an image asks for.
type Bind struct {
	Mount
	ReadOnly bool
}

// Binds reads the mounts of an image's rule, FROM:TO or FROM:TO:ro.
func Binds(image string, mounts []string) ([]Bind, error) {
	refuse := func(format string, args ...any) error {
		return resource.Invalid("images", format, args...).WithCause(resource.CauseInput).WithHint("change the rule of the image in images: of tategu.yaml")
	}
	var out []Bind
	for _, m := range mounts {
		parts := strings.Split(m, ":")
		if len(parts) < 2 || len(parts) > 3 || !filepath.IsAbs(parts[0]) || !path.IsAbs(parts[1]) || path.Clean(parts[1]) == "/" || len(parts) == 3 && parts[2] != "ro" {
			return nil, refuse("the mount %q of image %s is not FROM:TO or FROM:TO:ro with absolute paths", m, image)
		}
		if _, err := os.Stat(parts[0]); err != nil {
			return nil, refuse("the mount %q of image %s: %v", m, image, err)
		}
		out = append(out, Bind{Mount{From: parts[0], To: path.Clean(parts[1])}, len(parts) == 3})
	}
	return out, nil
}

// Volumes keeps the directories of named volumes, one each, below itself.
type Volumes string

// Mounts makes the directories of a workload's volumes and says where they go.
// dir is the workload's own directory.
func (v Volumes) Mounts(w runtime.Workload, dir string) ([]Mount, error) {
	var out []Mount
	for i, vol := range w.Volumes {
		from := filepath.Join(dir, "volumes", strconv.Itoa(i))
		if vol.Name != "" {
			if v == "" || !volumeName().MatchString(vol.Name) {
				return nil, resource.Invalid("volumes", "there is no volume %q here", vol.Name)
			}
			from = filepath.Join(string(v), vol.Name)
		}
		if to := path.Clean(vol.Path); !path.IsAbs(vol.Path) || to == "/" || vol.SubPath != "" && !filepath.IsLocal(vol.SubPath) {
			return nil, resource.Invalid("volumes", "the volume %q cannot be shown at %q/%q", vol.Name, vol.Path, vol.SubPath)
		}
		if err := shared(from); err != nil {
			return nil, err
		}
		if vol.SubPath != "" {
			inside, err := os.OpenRoot(from) // a link in it could lead anywhere
			if err != nil {
				return nil, err
			}
			err = sharedBelow(inside, filepath.Clean(vol.SubPath))
			if err = errors.Join(err, inside.Close()); err != nil {
				return nil, err
			}
			from = filepath.Join(from, vol.SubPath)
		}
		out = append(out, Mount{From: from, To: path.Clean(vol.Path)})
	}
	return out, nil
}

// shared makes a directory that programs of all users may write to; what is above
// it is the server's alone.
func shared(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o711); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(dir, 0o777) //nolint:gosec // containers write to it as users of their own
}

// sharedBelow makes a directory in a volume unless it is there: then programs have
// decided who may write to it.
func sharedBelow(volume *os.Root, dir string) error {
	if _, err := volume.Stat(dir); err == nil {
		return nil
	}
	if err := volume.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return volume.Chmod(dir, 0o777) // whatever our umask is
}

// VolumeNames lists the volumes that exist.
func (v Volumes) VolumeNames() ([]string, error) {
	entries, err := os.ReadDir(string(v))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() && volumeName().MatchString(e.Name()) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// DropVolume removes a volume with its content.
func (v Volumes) DropVolume(name string) error {
	if v == "" || !volumeName().MatchString(name) {
		return nil
	}
	return RemoveAll(filepath.Join(string(v), name))
}

func volumeName() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$`) }
