// Command perdure keeps work alive: it supervises long-running processes, any
// part of which, and of itself, may be killed at any instant.
package main

import (
	"os"

	"github.com/perdure/perdure/internal/cli"
	"github.com/perdure/perdure/internal/proc"
)

func main() {
	// A process that is being started passes through here first, before it
	// becomes the program that it shall be.
	proc.Shim(os.Args)
	os.Exit(cli.Main(os.Args[1:], seams()))
}
