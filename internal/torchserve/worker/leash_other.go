//go:build !linux

package worker

import "errors"

// newLeash makes none: workers are forked on Linux alone.
func newLeash(int) (*leash, []int, error) { return nil, nil, errors.ErrUnsupported }

func (l *leash) setThreads(int) error { return errors.ErrUnsupported }
func (l *leash) permit(int) error     { return errors.ErrUnsupported }
func (l *leash) withdraw(int) int     { return 0 }
func (l *leash) close() error         { return nil }
