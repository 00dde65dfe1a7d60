// Package box builds a container around a program: namespaces, an overlay over the
// image's files, a small /dev, limits and filters. It needs no daemon and knows
// nothing of workloads. It is linked into the wrapper, so that it imports little.
package box

import (
	"strings"
)

// Container is what the wrapper builds and enters before it starts a program; it
// is written to disk with the program's command line.
type Container struct {
	Image   string // for people
	Root    string // directory of the image's file system, which stays as it is
	Lock    string // held shared while the container lives; "" = nothing to hold
	Overlay bool   // changes go to a directory of the workload; else the image is read-only
	IDs     Mapping
	Binds   []Bind
	Host    string // host name
	User    User
	Dir     string // working directory, made when missing
	Cgroup  Cgroup
	Limits  Rlimits
	Filter  bool // refuse system calls that no program of ours needs
	Low     bool // gets a tenth of the processor that others get who want it
	Alone   bool // in a network of its own, in which there is nothing else
}

// User is who a program runs as, by the ids of the image.
type User struct {
	UID, GID int
	Groups   []int
	Home     string
}

// Bind shows a file or directory of the machine in the container.
type Bind struct {
	From, To string
	ReadOnly bool
	Device   bool // a device node that may be used as such
}

// Rlimits are what setrlimit(2) keeps a program to; zero is the machine's own.
type Rlimits struct{ Processes uint64 }

// Names in a workload's directory. Box belongs to the container's root, so that
// it can be reached from inside the user namespace.
const (
	Box      = "box"
	boxRoot  = "root"
	boxUpper = "upper"
	boxWork  = "ovl"
)

// Mode is what this machine lets us do; Probe finds it.
type Mode struct {
	IDs     Mapping
	Overlay bool
	Filter  bool
	Say     string // what a person should know of the isolation, besides the network
	Err     error  // why no container can run at all
}

// Attempt is what a probing child is told to try.
type Attempt struct {
	IDs     Mapping
	Overlay bool
	Filter  bool
}

func (m Mode) describe(notes []string) Mode {
	m.Say = strings.Join(append([]string{"container"}, notes...), ", ")
	return m
}
