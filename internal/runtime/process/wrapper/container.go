package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"tategu/internal/runtime/oom"
	"tategu/internal/runtime/process/box"
)

// wrapContainer is the wrapper of a container: the first process of its
// namespaces. It sees its directory by a descriptor once it is inside, and ends
// everything there by its own end, whatever that was.
func wrapContainer(dir string, s Spec, server *os.File, signals <-chan os.Signal) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }() // ends with us
	pid, err := box.HostPID()
	if err != nil {
		return err
	}
	if s.Container.Lock != "" {
		held, err := box.Hold(s.Container.Lock)
		if err != nil {
			return err
		}
		defer func() { _ = held.Close() }() // the image is in use until then
	}
	if err := announce(dir, pid, false, server); err != nil {
		return err
	}
	exit := runContainer(dir, root, s, signals)
	exit.Ended, exit.Image = time.Now(), s.Container.Image
	return insist(func() error { return writeInside(root, FileExit, exit) })
}

func runContainer(dir string, root *os.Root, s Spec, signals <-chan os.Signal) Exit {
	counter := box.OpenOOM(s.Container.Cgroup)
	ooms := oom.Kills()
	pid, err := box.Start(dir, s.Container, s.Command, s.Env)
	if err != nil {
		return notStarted(err, s.Container.Dir, fmt.Sprintf("%d:%d", s.Container.User.UID, s.Container.User.GID))
	}
	status, stopped := supervise(pid, signals, family{
		// A program inside may send us SIGTERM; it is Stop only when that is written.
		grace: func() (time.Duration, bool) { return grace(root) },
		// To the first process of a namespace, all means all of it.
		kill: func() { _ = syscall.Kill(-1, syscall.SIGKILL) },
	})
	exit := ended(status)
	exit.Stopped = stopped
	if n, ok := counter.Count(); ok {
		exit.OOM, exit.Counted = n > 0, true
	} else {
		exit.OOM = oom.Kills() > ooms
	}
	return exit
}

// grace reads stop.json; false = there is none. One without its content is of a
// server that found no room for it, and gives no grace.
func grace(root *os.Root) (time.Duration, bool) {
	b, err := root.ReadFile(FileStop)
	if err != nil {
		return 0, false
	}
	var s Stop
	if json.Unmarshal(b, &s) != nil {
		s.Grace = 0
	}
	return s.Grace, true
}

// writeInside is record.WriteWhole for a directory whose path we no longer see.
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
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return root.Rename(fresh, name)
}
