// Command perdure keeps work alive: it supervises long-running processes, any
// part of which, and of itself, may be killed at any instant.
package main

import (
	"fmt"
	"os"

	"github.com/perdure/perdure/internal/cli"
	"github.com/perdure/perdure/internal/proc"
	"github.com/perdure/perdure/internal/server"
)

func main() {
	// A process that is being started passes through here first, before it
	// becomes the program that it shall be.
	proc.Shim(os.Args)
	in, err := server.Inherit()
	if err != nil {
		fmt.Fprintln(os.Stderr, "perdure:", err)
		os.Exit(1)
	}
	os.Exit(cli.Main(os.Args[1:], seams(in)))
}
