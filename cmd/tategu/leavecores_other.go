//go:build !linux

package main

// cores are those that this process may run on; only Linux can keep it from some.
type cores struct{}

func newCores(func(text string)) *cores { return nil }

func (*cores) leave(int) {}
