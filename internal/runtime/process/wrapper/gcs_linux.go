package wrapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ProbeFile is what a probing wrapper looks for below the mount.
const ProbeFile = "probe"

// probe is the child of a server that wants to know whether gcs can be shown as root.
func probe(dir, root string) error {
	if err := mount(dir, []Mount{{From: filepath.Join(dir, DirGCS), To: root}}); err != nil {
		return err
	}
	if st, err := os.Stat(filepath.Join(root, ProbeFile)); err != nil || !st.IsDir() {
		return errors.New("the mount does not show")
	}
	return nil
}

// mount shows directories in our own mount namespace. Where / has no directory for
// one, a new root with the same entries and that one is built; the machine's own
// directories are never changed.
func mount(dir string, mounts []Mount) error {
	if err := leaveMounts(); err != nil {
		return err
	}
	var missing []Mount
	for _, m := range mounts {
		if st, err := os.Stat(m.To); err != nil || !st.IsDir() {
			missing = append(missing, m)
		} else if err := bind(m.From, m.To); err != nil {
			return err
		}
	}
	if len(missing) == 0 {
		return nil
	}
	root := filepath.Join(dir, DirRoot)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := newRoot(root); err != nil {
		return err
	}
	var made []string
	for _, m := range missing {
		var err error
		if made, err = mountNew(root, m, made); err != nil {
			return err
		}
	}
	return enterRoot(root)
}

func bind(from, to string) error {
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s to %s: %w", from, to, err)
	}
	return nil
}

func leaveMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("leave the mounts of the machine: %w", err)
	}
	return nil
}

// newRoot shows at root what / has, but for root itself, which is below one of these.
func newRoot(root string) error {
	err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m,mode=755")
	if err == nil {
		err = unix.Mount("", root, "", unix.MS_UNBINDABLE, "")
	}
	if err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	return copyRoot(root)
}

// mountNew shows a directory at a path that the machine does not have. made are the
// entries of / that were made so far.
func mountNew(root string, m Mount, made []string) ([]string, error) {
	top, _, deep := strings.Cut(m.To[1:], "/")
	if _, err := os.Lstat("/" + top); deep && err == nil && !slices.Contains(made, top) {
		return made, fmt.Errorf("bind %s: this machine has /%s, and nothing is made in it; run the program in a container, or mount below a directory that the machine does not have", m.To, top)
	}
	target := filepath.Join(root, m.To)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return made, err
	}
	return append(made, top), bind(m.From, target)
}

// copyRoot shows every entry of / under root.
func copyRoot(root string) error {
	entries, err := os.ReadDir("/")
	if err != nil {
		return err
	}
	for _, e := range entries {
		from, to := "/"+e.Name(), filepath.Join(root, e.Name())
		switch typ := e.Type(); {
		case typ&os.ModeSymlink != 0:
			link, err := os.Readlink(from)
			if err != nil {
				return err
			}
			if err := os.Symlink(link, to); err != nil {
				return err
			}
			continue
		case typ.IsDir():
			if err := os.Mkdir(to, 0o755); err != nil {
				return err
			}
		case typ.IsRegular():
			if err := os.WriteFile(to, nil, 0o644); err != nil {
				return err
			}
		default:
			continue // sockets and devices do not live in /
		}
		if err := bind(from, to); err != nil {
			return err
		}
	}
	return nil
}

func enterRoot(root string) error {
	old := filepath.Join(root, ".old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, old); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("let the new root be mounted elsewhere: %w", err)
	}
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Remove("/.old")
}
