package probe

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/perdure/perdure/api"
)

func TestWhatIsAskedDirectly(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"http://127.0.0.1:80": true, "http://[::1]/x": true, "http://[::ffff:127.0.0.1]:1": true, "http://localhost": true,
		"https://127.0.0.1": false, "http://0.0.0.0:1": false, "http://[fe80::1%25lo]:1": false,
		"127.0.0.1:80": true, "[::1]:80": true, "localhost:80": true, "LOCALHOST.:80": true, "localhost.example:80": false, "127.0.0.1:http": false,
		"unix:/a": true, "unix:" + strings.Repeat("x", 108): false,
	} {
		p := api.Probe{TCP: &api.TCPProbe{Address: address}}
		if strings.Contains(address, "//") {
			p = api.Probe{HTTP: &api.HTTPProbe{URL: address}}
		}
		a, err := newAsker(Spec{Probe: p})
		if err != nil {
			t.Fatal(err)
		}
		if got := newDirect(a) != nil; got != want {
			t.Errorf("%s: %v", address, got)
		}
	}
}

func TestDirectConnections(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Close() }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp := l.Addr().String()
	for _, address := range []string{"unix:" + path, tcp} {
		if res := told(t, api.Probe{TCP: &api.TCPProbe{Address: address}}); res.Answer != Yes || res.Detail != "" {
			t.Errorf("%s: %+v", address, res)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for _, p := range []api.Probe{
		{TCP: &api.TCPProbe{Address: tcp}}, {HTTP: &api.HTTPProbe{URL: "http://" + tcp}}, {TCP: &api.TCPProbe{Address: "unix:" + path + "x"}},
	} {
		want := "connect: connection refused"
		if p.TCP != nil && strings.HasPrefix(p.TCP.Address, "unix:") {
			want = "connect: no such file"
		}
		if res := told(t, p); res.Answer != No || !strings.Contains(res.Detail, want) {
			t.Errorf("%+v, want %s", res, want)
		}
	}
}

// Whoever listens on one of the addresses of localhost is found there, and found
// again when it has gone to the other.
func TestLocalhostIsAskedWhereSomebodyListens(t *testing.T) {
	t.Parallel()
	four, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(four.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	where := "localhost:" + port
	answer := func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }
	ask := func(p api.Probe, want Answer, detail string) {
		t.Helper()
		if res := told(t, p); res.Answer != want || !strings.Contains(res.Detail, detail) {
			t.Errorf("%+v, want %s %q", res, want, detail)
		}
	}
	tcp, http := api.Probe{TCP: &api.TCPProbe{Address: where}}, api.Probe{HTTP: &api.HTTPProbe{URL: "http://" + where}}
	serve(t, four, answer)
	ask(tcp, Yes, "")
	ask(http, Yes, "")
	if err := four.Close(); err != nil {
		t.Fatal(err)
	}
	ask(tcp, No, "refused")
	ask(http, No, "refused")
	six, err := net.Listen("tcp", "[::1]:"+port)
	if err != nil {
		t.Logf("no IPv6 here: %v", err)
		return
	}
	serve(t, six, answer)
	ask(tcp, Yes, "")
	ask(http, Yes, "")
}

// The address of localhost that took a connection is asked first from then on.
func TestThePlaceThatAnswersIsKept(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := direction("tcp", "localhost:"+port)
	d.best = 1
	two := direction("tcp", "localhost:"+port)
	for _, d := range []*direct{d, two} {
		var p poller
		if err := p.openSet(); err != nil {
			t.Fatal(err)
		}
		p.open = true
		p.begin(&task{direct: d, timeout: time.Minute})
		if len(p.under) != 0 || len(p.over) != 1 || p.over[0].res.Answer != Yes {
			t.Errorf("%+v", p.over)
		}
		p.close()
	}
	if d.best != 1 || two.best != 1 {
		t.Errorf("kept %d and %d, want the one that listens", d.best, two.best)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASocketConnectedToItselfIsSeen(t *testing.T) {
	t.Parallel()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	here, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, here); err != nil {
		t.Fatal(err)
	}
	if !toItself(fd) {
		t.Error("taken for a server")
	}
}

// silent is a server that accepts and tells of it, and says nothing.
func silent(t *testing.T) (url string, accepted chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted = make(chan net.Conn, 100)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-ended
		for close(accepted); ; {
			c, ok := <-accepted
			if !ok {
				return
			}
			_ = c.Close()
		}
	})
	return "http://" + l.Addr().String(), accepted
}

// stop calls off a direct ask under way, and one that waits for its turn comes.
func TestDirectAsksAreBoundedAndCalledOff(t *testing.T) {
	t.Parallel()
	url, accepted := silent(t)
	r := NewRunner(Options{MaxParallel: 2})
	var stops []func()
	for i := range 5 {
		stop, err := r.Start(Spec{Name: fmt.Sprint(i), Probe: api.Probe{HTTP: &api.HTTPProbe{URL: url + "/" + fmt.Sprint(i)}, Timeout: api.Duration(time.Hour)}},
			func(Result) { t.Error("a report of what was called off") })
		if err != nil {
			t.Fatal(err)
		}
		stops = append(stops, stop)
	}
	for range stops {
		c := <-accepted
		text := make([]byte, 6)
		if _, err := io.ReadFull(c, text); err != nil {
			t.Fatal(err)
		}
		r.mu.Lock()
		if r.asking > 2 {
			t.Errorf("%d at once", r.asking)
		}
		r.mu.Unlock()
		stops[text[5]-'0']()
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		_ = c.Close()
	}
	r.Close()
}

func TestCloseEndsDirectAsksUnderWay(t *testing.T) {
	t.Parallel()
	url, accepted := silent(t)
	r := NewRunner(Options{MaxParallel: 2})
	for i := range 5 {
		_, err := r.Start(Spec{Name: fmt.Sprint(i), Probe: api.Probe{HTTP: &api.HTTPProbe{URL: url}, Timeout: api.Duration(time.Hour)}},
			func(Result) { t.Error("a report after Close") })
		if err != nil {
			t.Fatal(err)
		}
	}
	one, two := <-accepted, <-accepted
	r.Close()
	for _, c := range []net.Conn{one, two} {
		if _, err := io.Copy(io.Discard, c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Error(err)
		}
		_ = c.Close()
	}
	if r.asking != 0 || r.polling || r.poll.open || len(r.poll.under) != 0 {
		t.Errorf("left over: %d asks, polling %v, open %v", r.asking, r.polling, r.poll.open)
	}
}

// Asks and commands that take a goroutine share the bound with direct ones.
func TestDirectAsksMakeRoomForCommands(t *testing.T) {
	t.Parallel()
	url, accepted := silent(t)
	r := NewRunner(Options{MaxParallel: 1})
	defer r.Close()
	stop, err := r.Start(Spec{Name: "a", Probe: api.Probe{HTTP: &api.HTTPProbe{URL: url}, Timeout: api.Duration(time.Hour)}}, func(Result) {})
	if err != nil {
		t.Fatal(err)
	}
	c := <-accepted
	defer func() { _ = c.Close() }()
	ran := make(chan bool, 1)
	if _, err := r.Start(execSpec("b", api.Probe{Interval: api.Duration(time.Hour)}, sleepy(0)), func(Result) { ran <- true }); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ran
	if _, err := r.Start(Spec{Name: "c", Probe: api.Probe{HTTP: &api.HTTPProbe{URL: url}, Timeout: api.Duration(time.Hour)}}, func(Result) {}); err != nil {
		t.Fatal(err)
	}
	again := <-accepted
	_ = again.Close()
}
