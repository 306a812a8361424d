//go:build unix

package e2e

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// playRole is what this binary does as a managed program.
func playRole(role string) (code int) {
	switch role {
	case "stubborn": // ignores what asks it to end
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("stubborn", os.Getpid())
		forever := make(chan os.Signal, 1)
		signal.Notify(forever, syscall.SIGUSR1)
		<-forever
		return 0
	case "logger":
		return playLogger()
	default:
		fmt.Fprintln(os.Stderr, "there is no role", role)
		return 64
	}
}
