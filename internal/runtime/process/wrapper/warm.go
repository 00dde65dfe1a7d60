package wrapper

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

// forkPatience is how long a forked program may take to be ready.
const forkPatience = 10 * time.Second

// program waits to be told that everything around it is made. A nil one is none.
type program struct {
	pid    int
	socket *os.File
	here   bool // it has said that it is ready
}

// forked is the program of a pid that waits already; "0" = none.
func forked(pid string) (*program, error) {
	n, err := strconv.Atoi(pid)
	switch {
	case err != nil || n < 0 || n == 1:
		return nil, fmt.Errorf("%q is not the pid of a program", pid)
	case n == 0:
		return nil, nil
	}
	syscall.CloseOnExec(warmFD)
	if err := syscall.SetNonblock(warmFD, true); err != nil {
		return nil, os.NewSyscallError("the program's socket", err)
	}
	return &program{pid: n, socket: os.NewFile(warmFD, "program")}, nil
}

// tell has the program put on its workload, whose output file is our own by now.
func (p *program) tell(dir string) error {
	if p == nil {
		return nil
	}
	frame, err := Frame(Request{Dir: dir})
	if err != nil {
		return err
	}
	if err := syscall.Sendmsg(warmFD, frame[:headSize], syscall.UnixRights(1), nil, 0); err != nil {
		return os.NewSyscallError("tell the program of its workload", err)
	}
	_, err = p.socket.Write(frame[headSize:])
	return err
}

// ready waits until the program has put on what a cold start would give it. One
// that does not is ended, and started cold.
func (p *program) ready() bool {
	if p == nil {
		return false
	}
	err := p.socket.SetReadDeadline(time.Now().Add(forkPatience))
	if err == nil {
		_, err = p.socket.Read(make([]byte, 1))
	}
	if p.here = err == nil; !p.here {
		p.give()
	}
	return p.here
}

// begin lets the program run, unless it has gone meanwhile.
func (p *program) begin() (pid int, begun bool) {
	if p == nil || !p.here {
		return 0, false
	}
	_, err := p.socket.Write([]byte{'g'})
	if p.here = false; err != nil {
		p.give()
		return 0, false
	}
	_ = p.socket.Close() // it needs no more of us
	p.socket = nil
	return p.pid, true
}

// give ends a program that has not begun.
func (p *program) give() {
	if p == nil || p.socket == nil {
		return
	}
	_ = p.socket.Close() // it may be gone
	p.socket = nil
	_ = syscall.Kill(p.pid, syscall.SIGKILL) // likewise
	for {
		if _, err := syscall.Wait4(p.pid, nil, 0, nil); !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}
