package score

import (
	"errors"
	"io"
)

// Stretch is how much of a section is copied in one system call. A kernel that does not
// preempt itself, as servers' kernels are, leaves a core to nobody else meanwhile,
// whatever the priority of who asked for it: 8 MiB at once are two milliseconds of a
// request that has nothing to do with them.
const Stretch = 256 << 10

// ReadStretches fills buf.
func ReadStretches(r io.Reader, buf []byte) error {
	for done := 0; done < len(buf); {
		n, err := io.ReadFull(r, buf[done:min(done+Stretch, len(buf))])
		done += n
		if errors.Is(err, io.EOF) && done > 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
	}
	return nil
}
