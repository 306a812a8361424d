//go:build !linux

package probe

// direct is an ask that poller can make.
type direct struct{}

func newDirect(asker) *direct { return nil }

// poller makes asks without a goroutine each. Here it makes none: the sockets of
// package net do what is needed.
type poller struct{}

func (*poller) ready() bool { return false }
func (*poller) wake()       {}
func (*poller) run(*Runner) {}
func (*poller) close()      {}
