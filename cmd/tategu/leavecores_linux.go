package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// cores are those that this process may run on.
type cores struct {
	say func(text string)

	mu   sync.Mutex
	all  unix.CPUSet // at its start
	left int
}

func newCores(say func(text string)) *cores {
	c := &cores{say: say}
	if err := unix.SchedGetaffinity(0, &c.all); err != nil {
		say("it runs on all cores, whoever wants them: " + err.Error())
	}
	return c
}

// leave keeps all threads of this process from the last n cores that it may run on;
// where these are all, it changes nothing. All workers of a machine leave the same ones.
func (c *cores) leave(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n == c.left || n >= c.all.Count() {
		return
	}
	c.left = n
	set := c.all
	for cpu := len(set)*strconv.IntSize - 1; n > 0; cpu-- {
		if set.IsSet(cpu) {
			set.Clear(cpu)
			n--
		}
	}
	const passes = 2 // the second finds threads that others started meanwhile
	for range passes {
		if err := confine(&set); err != nil {
			c.say("it does not leave the cores that it was told to: " + err.Error())
			return
		}
	}
	c.say(fmt.Sprintf("%d of %d cores are left to requests to endpoints", c.left, c.all.Count()))
}

// confine has the threads that there are run on a set of cores.
func confine(set *unix.CPUSet) error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return fmt.Errorf("a thread is called %q", t.Name())
		}
		if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
			return os.NewSyscallError("sched_setaffinity", err)
		}
	}
	return nil
}
