package process

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"syscall"
	"time"

	"tategu/internal/runtime/process/oci"
	"tategu/internal/volume"
)

// wrapContainer is the wrapper of a container: the first process of its
// namespaces. It sees its directory by a descriptor once it is inside, and ends
// everything there by its own end, whatever that was.
func wrapContainer(dir string, s spec, signals <-chan os.Signal) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // ends with us
	pid, err := oci.HostPID()
	if err != nil {
		return err
	}
	if s.Container.Lock != "" {
		held, err := oci.Hold(s.Container.Lock)
		if err != nil {
			return err
		}
		defer func() { _ = held.Close() }() // the image is in use until then
	}
	if err := announce(dir, pid); err != nil {
		return err
	}
	exit := runContainer(dir, root, s, signals)
	exit.Ended, exit.Image = time.Now(), s.Container.Image
	return volume.Retry(context.Background(), func(error) {}, func() error { return writeInside(root, fileExit, exit) })
}

func runContainer(dir string, root *os.Root, s spec, signals <-chan os.Signal) exitFile {
	counter := oci.OpenOOM(s.Container.Cgroup)
	ooms := oomKills()
	pid, err := oci.Start(dir, s.Container, s.Command, s.Env)
	if err != nil {
		return notStarted(err)
	}
	status, stopped := supervise(pid, signals, family{
		// A program inside may send us SIGTERM; it is Stop only when that is written.
		grace: func() (time.Duration, bool) {
			var s stopFile
			b, err := root.ReadFile(fileStop)
			if err != nil || json.Unmarshal(b, &s) != nil {
				return 0, false
			}
			return s.Grace, true
		},
		// To the first process of a namespace, all means all of it.
		kill: func() { _ = syscall.Kill(-1, syscall.SIGKILL) },
	})
	exit := ended(status)
	exit.Stopped = stopped
	if n, ok := counter.Count(); ok {
		exit.OOM, exit.Counted = n > 0, true
	} else {
		exit.OOM = oomKills() > ooms
	}
	return exit
}

// writeInside is writeDurable for a directory whose path we no longer see.
func writeInside(root *os.Root, name string, v any) (err error) {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	fresh := ".new-" + name
	f, err := root.OpenFile(fresh, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := root.Rename(fresh, name); err != nil {
		return err
	}
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
