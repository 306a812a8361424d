//go:build linux

// Command child is child.c for machines without a C compiler: the same words,
// a few hundred microseconds slower to start.
package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func say(socket, name string) {
	c, err := net.Dial("unixgram", socket)
	if err == nil {
		_, err = fmt.Fprintf(c, "%s %d", name, os.Getpid())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child: cannot speak to the harness:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 3 {
		os.Exit(2)
	}
	socket, name := os.Args[1], os.Args[2]
	mode := append(os.Args[3:], "", "")
	switch mode[0] {
	case "middle": // of a double fork: start the last one and end
		descend(socket, name, mode[1] == "session", "", false)
		return
	case "lines":
		say(socket, name)
		n, err := strconv.Atoi(mode[1])
		if err != nil {
			os.Exit(2)
		}
		lines(n)
		say(socket, name+".done")
	case "exit":
		exit(socket, name)
	case "ticks":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGUSR1)
		say(socket, name)
		ticks(mode[1], ended)
	case "tree":
		say(socket, name)
		descend(socket, name+".plain", false, "", true)
		descend(socket, name+".setsid", true, "", true)
		descend(socket, name+".double", false, "middle", true)
		descend(socket, name+".both", true, "middle", true)
	default:
		say(socket, name)
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	<-ended
}

// descend starts one descendant; without wait it is left behind.
func descend(socket, name string, session bool, mode string, wait bool) {
	cmd := exec.Command("/proc/self/exe", socket, name, mode)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: session}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "child: cannot start:", err)
		os.Exit(1)
	}
	if wait && mode == "middle" {
		if err := cmd.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, "child: middle:", err)
		}
	}
}

// exit waits for the signal that says with what to end.
func exit(socket, name string) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	say(socket, name)
	if <-told == syscall.SIGUSR1 {
		os.Exit(113)
	}
	os.Exit(114)
}

// ticks writes 20 lines every 10 ms and keeps their number in a file of this
// process, behind each of them.
func ticks(prefix string, told <-chan os.Signal) {
	kept, err := os.Create(fmt.Sprintf("%s.%d", prefix, os.Getpid()))
	if err == nil {
		_, err = kept.WriteAt([]byte("0\n"), 0)
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for count := 0; err == nil; {
		for i := 0; i < 20 && err == nil; i++ {
			line := fmt.Sprintf("T%d %010d ", os.Getpid(), count)
			if _, err = os.Stdout.WriteString(line + strings.Repeat("x", 99-len(line)) + "\n"); err == nil {
				count++
				_, err = kept.WriteAt(fmt.Appendf(nil, "%d\n", count), 0)
			}
		}
		select {
		case <-told:
			return
		case <-tick.C:
		}
	}
	fmt.Fprintln(os.Stderr, "child: cannot write lines:", err)
	os.Exit(1)
}

func lines(n int) {
	w := bufio.NewWriterSize(os.Stdout, 65500)
	fill := strings.Repeat("x", 88)
	for i := range n {
		fmt.Fprintf(w, "%010d %s\n", i, fill)
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "child: cannot write:", err)
		os.Exit(1)
	}
}
