//go:build unix

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// playRole is what this binary does as a managed program.
func playRole(role string) (code int) {
	switch role {
	case "stubborn": // ignores what asks it to end
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		fmt.Println("stubborn", os.Getpid())
		rest()
		return 0
	case "logger":
		return playLogger()
	case "counter":
		return playCounter()
	case "emitter":
		return playEmitter()
	case "plain":
		return playPlain()
	default:
		fmt.Fprintln(os.Stderr, "there is no role", role)
		return 64
	}
}

// playLogger writes numbered lines to both streams until the file "enough" is
// there, in pieces that end within lines, and then ends in the middle of one:
// "out 17" and so on, at last "out end 18". Its exit code is 42.
func playLogger() int {
	var streams sync.WaitGroup
	for name, f := range map[string]*os.File{"out": os.Stdout, "err": os.Stderr} {
		streams.Go(func() {
			w := bufio.NewWriterSize(f, 100+len(name))
			for n := 1; ; n++ {
				if n%64 == 0 {
					if _, err := os.Stat("enough"); err == nil {
						fmt.Fprintf(w, "%s end %d", name, n)
						if err := w.Flush(); err != nil {
							os.Exit(3)
						}
						return
					}
				}
				// Now and then a long line, now and then a pause within one.
				fmt.Fprintf(w, "%s %d%s", name, n, strings.Repeat("x", n%7*n%50))
				if n%50 == 0 {
					if err := w.Flush(); err != nil {
						os.Exit(3)
					}
					<-tick()
				}
				fmt.Fprintln(w)
			}
		})
	}
	streams.Wait()
	return 42
}

// playCounter writes lines "GENERATION N" for as long as it lives, and after each
// one the number into the file counts/NAME.GENERATION: what stands there has been
// written for sure, and at most one line more.
func playCounter() int {
	generation := os.Getenv("PERDURE_GENERATION")
	f, err := os.Create("counts/" + os.Getenv("PERDURE_NAME") + "." + generation)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	for n := 1; ; n++ {
		if _, err := fmt.Printf("%s %d\n", generation, n); err != nil {
			return 4
		}
		if _, err := f.WriteAt(fmt.Appendf(nil, "%010d", n), 0); err != nil {
			return 5
		}
		if n%(1+n%13) == 0 {
			<-tick()
		}
	}
}

// tick comes a little later: it paces what is done again and again, and no
// outcome depends on it.
func tick() <-chan time.Time { return time.After(50 * time.Millisecond) }
