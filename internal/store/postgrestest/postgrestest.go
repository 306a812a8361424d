//go:build linux

// Package postgrestest runs a real PostgreSQL for tests: a private server in a
// directory of its own, reached by a Unix socket, ended with the tests.
package postgrestest

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec" //nolint:depguard // a database for tests is not a managed process
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is one server for all tests of a binary. The zero value starts when it is
// first asked for. TestMain calls Stop.
type Server struct {
	once    sync.Once
	err     error
	missing bool
	dir     string
	bin     string
	who     *syscall.Credential
	cmd     *exec.Cmd
	exited  chan struct{}
	schemas atomic.Int64
}

// Schema returns the URL of the server's database and the name of a schema that no
// other test uses. Where PostgreSQL is not installed the test is skipped.
func (p *Server) Schema(t testing.TB) (databaseURL, schema string) {
	t.Helper()
	p.once.Do(p.start)
	if p.missing {
		t.Skip("PostgreSQL is not installed: no initdb in PATH or /usr/lib/postgresql")
	}
	if p.err != nil {
		t.Fatal(p.err)
	}
	return p.URL(), fmt.Sprintf("t%d", p.schemas.Add(1))
}

// URL is the URL of the database.
func (p *Server) URL() string {
	return "postgres:///postgres?user=perdure&host=" + url.QueryEscape(p.dir)
}

func (p *Server) start() {
	if p.bin = binaries(); p.bin == "" {
		p.missing = true
		return
	}
	if p.dir, p.err = os.MkdirTemp("/tmp", "perdure-pg-"); p.err != nil { // a short path: it holds a socket
		return
	}
	if p.err = p.unprivileged(); p.err != nil {
		return
	}
	data := filepath.Join(p.dir, "data")
	init := p.command("initdb", "-D", data, "-U", "perdure", "-A", "trust", "--no-sync", "--no-locale", "-E", "UTF8")
	if out, err := init.CombinedOutput(); err != nil {
		p.err = fmt.Errorf("initdb: %w\n%s", err, out)
		return
	}
	p.err = p.Run()
}

// Run starts the server; after Kill it may be started again.
func (p *Server) Run() error {
	args := []string{"-D", filepath.Join(p.dir, "data"), "-k", p.dir, "-c", "listen_addresses=", "-c", "max_connections=200",
		"-c", "shared_buffers=64MB", "-c", "synchronous_commit=on"}
	if os.Getenv("PERDURE_TEST_PG_FSYNC") == "" {
		args = append(args, "-c", "fsync=off")
	}
	p.cmd = p.command("postgres", args...)
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.exited = make(chan struct{})
	started := make(chan error)
	go func() {
		// The server dies with the thread that started it, so the thread stays.
		runtime.LockOSThread()
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT // when the tests are killed
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // it is ended by a signal
		}
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return err
	}
	return p.ready()
}

// ready waits until the server takes connections.
func (p *Server) ready() error {
	for {
		conn, err := pgx.Connect(context.Background(), p.URL())
		if err == nil {
			return conn.Close(context.Background())
		}
		select {
		case <-p.exited:
			said, _ := os.ReadFile(filepath.Join(p.dir, "log"))
			return fmt.Errorf("PostgreSQL does not start: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the server as a crash would.
func (p *Server) Kill() {
	_ = p.cmd.Process.Signal(syscall.SIGQUIT) // immediate shutdown: recovery at the next start
	<-p.exited
}

// Stop ends the server and removes its directory.
func (p *Server) Stop() {
	if p.cmd != nil && p.cmd.Process != nil {
		p.Kill()
	}
	if p.dir != "" {
		_ = os.RemoveAll(p.dir)
	}
}

func (p *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(p.bin, name), args...)
	cmd.Dir = p.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.who, Setpgid: true}
	return cmd
}

// unprivileged makes the server run as somebody else when the tests run as root:
// PostgreSQL refuses root.
func (p *Server) unprivileged() error {
	if os.Getuid() != 0 {
		return nil
	}
	var errs []error
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		p.who = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(p.dir, int(uid), int(gid))
	}
	return errors.Join(errs...)
}

// binaries finds the folder of initdb and postgres: that of the newest version.
func binaries() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // a pattern without faults
	slices.Sort(found)
	if len(found) > 0 {
		return filepath.Dir(found[len(found)-1])
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		return filepath.Dir(path)
	}
	return ""
}
