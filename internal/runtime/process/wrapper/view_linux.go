package wrapper

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// view is what a program will see of the machine, made before there is a program: all
// but the directories of its own. A nil one, and one without before, was not made.
type view struct {
	shown  string   // the path that every program is shown
	before *os.File // the machine's /, as it was copied ...
	at     unix.Timespec
}

// openView builds / anew in root, a directory that is the machine's, with an empty one
// at shown. Where / has one there, nothing is to be built.
func openView(root, shown string) (*view, error) {
	if root == "" {
		return nil, nil
	}
	v := &view{shown: shown}
	if st, err := os.Stat(shown); err == nil && st.IsDir() {
		return v, nil
	}
	var err error
	if v.before, err = os.Open("/"); err != nil {
		return nil, err
	}
	if v.at, err = changed(v.before); err != nil {
		return nil, err
	}
	err = leaveMounts()
	if err == nil {
		err = newRoot(root)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Join(root, shown), 0o755)
	}
	if err == nil {
		err = enterRoot(root)
	}
	return v, err
}

func changed(f *os.File) (unix.Timespec, error) {
	var st unix.Stat_t
	err := unix.Fstat(int(f.Fd()), &st)
	return st.Ctim, os.NewSyscallError("look at /", err)
}

// current reports that / has the entries that were copied: what was mounted since shows,
// what was made in / does not.
func (v *view) current() error {
	if !v.ready() {
		return nil
	}
	now, err := changed(v.before)
	if err == nil && now != v.at {
		err = errors.New("the machine's / has changed since it was copied")
	}
	return errors.Join(err, v.before.Close())
}

// ready reports that the program's / has been entered.
func (v *view) ready() bool { return v != nil && v.before != nil }

// add shows the directories of a workload.
func (v *view) add(mounts []Mount) error {
	made := []string{strings.Split(v.shown, "/")[1]}
	for _, m := range mounts {
		st, err := os.Stat(m.To)
		if err == nil && st.IsDir() {
			err = bind(m.From, m.To)
		} else {
			made, err = mountNew("/", m, made)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func dup(from, to int) error { return syscall.Dup3(from, to, 0) }

// entitle shows to ps the command line that a wrapper has which was started for its
// workload: of ours, all else is padding.
func entitle(command []string) error {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	const first, argStart, argEnd = 3, 48, 49 // proc_pid_stat(5)
	if len(fields) <= argEnd-first {
		return fmt.Errorf("/proc/self/stat has %d fields", len(fields))
	}
	start, err := strconv.ParseInt(fields[argStart-first], 10, 64)
	if err != nil {
		return err
	}
	end, err := strconv.ParseInt(fields[argEnd-first], 10, 64)
	if err != nil {
		return err
	}
	text := strings.Join(command, "\x00") + "\x00"
	area := make([]byte, end-start)
	if copy(area, text) < len(text) {
		return errors.New("the path of the directory is too long")
	}
	memory, err := os.OpenFile("/proc/self/mem", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = memory.WriteAt(area, start)
	return errors.Join(err, memory.Close())
}
