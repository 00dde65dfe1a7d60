package wrapper

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ProbeFile is what a probing wrapper looks for below the mount.
const ProbeFile = "probe"

// probe is the child of a server that wants to know whether gcs can be shown as root.
func probe(dir, root string) error {
	if err := mountGCS(dir, filepath.Join(dir, DirGCS), root); err != nil {
		return err
	}
	if st, err := os.Stat(filepath.Join(root, ProbeFile)); err != nil || !st.IsDir() {
		return errors.New("the mount does not show")
	}
	return nil
}

// mountGCS makes gcs visible as on in our own mount namespace. Where / has no
// such directory, a new root with the same entries and that one is built; the
// machine's own root is never changed.
func mountGCS(dir, gcs, on string) error {
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("leave the mounts of the machine: %w", err)
	}
	if st, err := os.Stat(on); err == nil && st.IsDir() {
		return unix.Mount(gcs, on, "", unix.MS_BIND|unix.MS_REC, "")
	}
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=1m,mode=755"); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	if err := copyRoot(root); err != nil {
		return err
	}
	target := filepath.Join(root, on)
	if err := os.Mkdir(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(gcs, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", on, err)
	}
	return enterRoot(root)
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
		if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", from, err)
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
	if err := unix.Unmount("/.old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the old root: %w", err)
	}
	return os.Remove("/.old")
}
