package session

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// peerOf says who is at the other end of an accepted connection.
func (e *Endpoint) peerOf(fd int) Peer {
	if e.spec.Path == "" {
		return e.tcpPeer(fd)
	}
	// SO_PEERCRED (unix(7)): who connected, as the kernel noted then.
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{UID: -1, Foreign: "the system does not tell who connects: " + err.Error()}
	}
	return e.judge(int(cred.Pid), int(cred.Uid))
}

// judge says whether a process that the kernel has named may speak.
func (e *Endpoint) judge(pid, uid int) Peer {
	p := Peer{PID: pid, UID: uid, Vouched: true}
	switch {
	case pid == 0:
		// It is of another pid namespace that ours cannot see: a container. The
		// folder of the socket, which only the process was told, must do.
	case e.handler.Owns(pid):
	case !alive(pid) && uid == os.Geteuid():
		// A short program of the process's, such as a shell script's: it has ended
		// before it could be looked at.
	default:
		p.Vouched, p.Foreign = false, fmt.Sprintf("process %d does not belong to the process", pid)
	}
	return p
}

func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || i+2 >= len(b) || b[i+2] != 'Z' && b[i+2] != 'X'
}

// tcpPeer looks for the process that holds the other end of a connection on
// loopback: its inode is in /proc/net/tcp (proc_pid_net(5)), and a process
// that has it open has a link to it in /proc/PID/fd.
func (e *Endpoint) tcpPeer(fd int) Peer {
	p := Peer{UID: -1}
	own, err := unix.Getsockname(fd)
	if err != nil {
		return p
	}
	other, err := unix.Getpeername(fd)
	if err != nil {
		return p
	}
	a, ok1 := own.(*unix.SockaddrInet4)
	b, ok2 := other.(*unix.SockaddrInet4)
	if !ok1 || !ok2 {
		return p
	}
	inode, uid := tcpInode(hexAddr(b), hexAddr(a))
	if inode == "" {
		return p
	}
	p.UID = uid
	link := "socket:[" + inode + "]"
	for _, pid := range e.handler.Tree() {
		if holds(pid, link) {
			p.PID, p.Vouched = pid, true
			return p
		}
	}
	return p
}

// hexAddr is an address as /proc/net/tcp writes it: the four bytes as a number
// of the machine's own order.
func hexAddr(a *unix.SockaddrInet4) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.Addr[:]), a.Port)
}

func tcpInode(local, remote string) (inode string, uid int) {
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return "", -1
	}
	for line := range bytes.Lines(b) {
		f := strings.Fields(string(line))
		if len(f) > 9 && f[1] == local && f[2] == remote {
			uid, err = strconv.Atoi(f[7])
			if err != nil {
				return "", -1
			}
			return f[9], uid
		}
	}
	return "", -1
}

func holds(pid int, link string) bool {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	names, err := os.ReadDir(dir)
	if err != nil {
		return false // it has ended, or is not ours to look at
	}
	for _, n := range names {
		if to, err := os.Readlink(dir + "/" + n.Name()); err == nil && to == link {
			return true
		}
	}
	return false
}
