package probe

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// direct is an ask that poller can make: it needs no name service and no TLS.
type direct struct {
	// to are the places where it may be answered: one, or those of localhost. An
	// ask goes to the one that took the last connection, and to the others when
	// that refuses.
	to   []place
	best int        // index in to; poller's own
	http *httpAsker // nil when an open connection is the answer
}

// place is where an ask goes.
type place struct {
	family int
	at     address
	name   net.Addr // the same, for messages
}

// newDirect returns nil where a cannot be asked by a poller.
func newDirect(a asker) *direct {
	switch a := a.(type) {
	case *httpAsker:
		if d := direction(a.network, a.address); d != nil && a.tls == nil {
			d.http = a
			return d
		}
	case tcpAsker:
		return direction(a.network, a.address)
	}
	return nil
}

func direction(network, where string) *direct {
	if network == "unix" {
		if len(where) > maxSunPath {
			return nil
		}
		return &direct{to: []place{{unix.AF_UNIX, local(where), &net.UnixAddr{Name: where, Net: network}}}}
	}
	host, service, err := net.SplitHostPort(where)
	if err != nil {
		return nil
	}
	n, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil
	}
	port := uint16(n)
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		// It is this machine, whatever a name service says (RFC 6761, 6.3); IPv6
		// first, as package net has it (RFC 6724).
		return &direct{to: []place{tcpPlace(netip.IPv6Loopback(), port), tcpPlace(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)}}
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() {
		return nil // package net knows what to make of it
	}
	return &direct{to: []place{tcpPlace(ip.Unmap(), port)}}
}

func tcpPlace(ip netip.Addr, port uint16) place {
	name := net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, port))
	if ip.Is4() {
		return place{unix.AF_INET, inet4(ip.As4(), port), name}
	}
	return place{unix.AF_INET6, inet6(ip.As16(), port), name}
}

// toItself says whether the kernel has taken the port that is asked, where
// nobody listens, for this side's own and has connected the socket to itself
// (RFC 9293, 3.5, figure 7).
func toItself(fd int) bool {
	here, err1 := unix.Getsockname(fd)
	there, err2 := unix.Getpeername(fd)
	if err1 != nil || err2 != nil {
		return false
	}
	switch h := here.(type) {
	case *unix.SockaddrInet4:
		t, ok := there.(*unix.SockaddrInet4)
		return ok && h.Port == t.Port && h.Addr == t.Addr
	case *unix.SockaddrInet6:
		t, ok := there.(*unix.SockaddrInet6)
		return ok && h.Port == t.Port && h.Addr == t.Addr
	}
	return false
}
