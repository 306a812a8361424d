package probe

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls of this file never block, and so do without what the runtime does
// around a system call that might: the first of those after an idle time wakes a
// thread of the runtime that watches it, which costs more than the call.

// address is a socket address as the kernel reads it.
type address struct {
	raw [unix.SizeofSockaddrUnix]byte
	len uintptr
}

func native(b []byte, v uint16) { binary.NativeEndian.PutUint16(b, v) }

// inet4 is a sockaddr_in (ip(7)).
func inet4(ip [4]byte, port uint16) (a address) {
	native(a.raw[0:], unix.AF_INET)
	binary.BigEndian.PutUint16(a.raw[2:], port)
	copy(a.raw[4:], ip[:])
	a.len = unix.SizeofSockaddrInet4
	return a
}

// inet6 is a sockaddr_in6 (ipv6(7)); flow and scope are zero.
func inet6(ip [16]byte, port uint16) (a address) {
	native(a.raw[0:], unix.AF_INET6)
	binary.BigEndian.PutUint16(a.raw[2:], port)
	copy(a.raw[8:], ip[:])
	a.len = unix.SizeofSockaddrInet6
	return a
}

// maxSunPath is how long the path of a Unix socket may be, in bytes (unix(7)).
const maxSunPath = 107

// local is a sockaddr_un (unix(7)). Its path has at most maxSunPath bytes; a
// leading @ is a name without a file, as in package net.
func local(path string) (a address) {
	native(a.raw[0:], unix.AF_UNIX)
	n := copy(a.raw[2:2+maxSunPath], path)
	if n > 0 && path[0] == '@' {
		a.raw[2] = 0
	} else {
		n++ // the zero byte at its end
	}
	a.len = uintptr(2 + n)
	return a
}

func socket(family int) (int, error) {
	fd, _, errno := unix.RawSyscall(unix.SYS_SOCKET, uintptr(family), unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	return int(fd), orNil(errno)
}

func connect(fd int, to *address) error {
	_, _, errno := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&to.raw)), to.len)
	return orNil(errno)
}

// send and receive are for sockets without blocking and for at least one byte.
func send(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
	return int(n), orNil(errno)
}

func receive(fd int, b []byte) (int, error) {
	n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
	return int(n), orNil(errno)
}

// closeSocket cannot fail in a way that matters: the answer is read, or is no
// use.
func closeSocket(fd int) { _, _, _ = unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// happened takes what has happened without waiting for more.
func happened(epoll int, events []unix.EpollEvent) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		if errno != unix.EINTR {
			return int(n), orNil(errno)
		}
	}
}

// count adds to an eventfd, or reads it.
func count(call uintptr, fd int) {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	// A write fails only when so much is in it that it wakes anyhow, a read only
	// when there is nothing to be read (eventfd(2)).
	_, _, _ = unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&one)), uintptr(len(one)))
}

// orNil makes no error of zero.
func orNil(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func again(err error) bool {
	return errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR)
}
