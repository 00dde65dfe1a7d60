package wrapper

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Waiting is the first argument of a wrapper that is started before there is a workload
// for it. It is followed by the directory to build / in and the path to show there, both
// empty where nothing is mounted, by padding, and by the pid of a program that was forked,
// 0 = none. Such a program is our child: the process that forked it became us by exec.
const Waiting = "--wait"

// Padding is how long the command line of a wrapper may be, which shows its workload.
const Padding = 4096

// Request is what a waiting wrapper gets, with two descriptors beside it: the output
// file, and the pipe that it says by what became of the workload.
type Request struct{ Dir string }

// Frame is a request as it is sent: its length in hexadecimal digits, then JSON.
func Frame(r Request) ([]byte, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%0*x", headSize, len(body)), body...), nil
}

const (
	headSize = 8
	mostBody = 64 << 10
)

// wait makes what is the same for every workload, and then wraps the one that it is
// told of. It ends where nobody will tell it of one any more.
func wait(root, shown, pid string) error {
	syscall.CloseOnExec(linkFD)
	syscall.CloseOnExec(selfFD)
	p, err := forked(pid)
	if err != nil {
		return err
	}
	v, err := openView(strings.Clone(root), strings.Clone(shown))
	if err != nil {
		return err
	}
	dir, fds, err := receive(linkFD)
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what to run: %w", err)
	}
	server, err := v.take(dir, fds)
	if err == nil {
		err = p.tell(dir)
	}
	if err != nil {
		return err
	}
	defer p.give() // should somebody else have the workload
	return wrap(dir, p, v, server)
}

// take makes the wrapper that of a workload.
func (v *view) take(dir string, fds []int) (server *os.File, err error) {
	if len(fds) != 2 {
		return nil, fmt.Errorf("%d descriptors came with what to run", len(fds))
	}
	server = os.NewFile(uintptr(fds[1]), "link")
	for _, fd := range []int{1, 2} {
		if err := dup(fds[0], fd); err != nil {
			return nil, os.NewSyscallError("dup", err)
		}
	}
	if err := errors.Join(syscall.Close(fds[0]), syscall.Close(linkFD)); err != nil {
		return nil, err
	}
	if err := v.current(); err != nil {
		return nil, err
	}
	if err := os.Chdir(dir); err != nil {
		return nil, err
	}
	return server, entitle([]string{os.Args[0], Verb, dir})
}

// receive reads a request and the descriptors beside it.
func receive(fd int) (dir string, fds []int, err error) {
	head, beside := make([]byte, headSize), make([]byte, syscall.CmsgSpace(8*4))
	n, oobn, _, _, err := recvmsg(fd, head, beside)
	if err != nil {
		return "", nil, err
	}
	if n == 0 {
		return "", nil, io.EOF
	}
	messages, err := syscall.ParseSocketControlMessage(beside[:oobn])
	if err != nil {
		return "", nil, err
	}
	for _, m := range messages {
		some, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return "", nil, err
		}
		fds = append(fds, some...)
	}
	for _, fd := range fds {
		syscall.CloseOnExec(fd)
	}
	if err := readFull(fd, head[n:]); err != nil {
		return "", fds, err
	}
	size, err := strconv.ParseUint(string(head), 16, 32)
	if err != nil || size > mostBody {
		return "", fds, fmt.Errorf("%q is not the length of a request", head)
	}
	body := make([]byte, size)
	if err := readFull(fd, body); err != nil {
		return "", fds, err
	}
	var r Request
	if err := json.Unmarshal(body, &r); err != nil {
		return "", fds, err
	}
	if r.Dir == "" {
		return "", fds, errors.New("a request names no directory")
	}
	return r.Dir, fds, nil
}

func recvmsg(fd int, p, oob []byte) (n, oobn, flags int, from syscall.Sockaddr, err error) {
	for {
		n, oobn, flags, from, err = syscall.Recvmsg(fd, p, oob, 0)
		if !errors.Is(err, syscall.EINTR) {
			return n, oobn, flags, from, err
		}
	}
}

// readFull fills b; the end before is io.ErrUnexpectedEOF.
func readFull(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := syscall.Read(fd, b)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return err
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			b = b[n:]
		}
	}
	return nil
}
