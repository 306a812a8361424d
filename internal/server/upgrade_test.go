package server

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/perdure/perdure/api"
)

// What an upgrade does depends on what becomes of the supervisor. Only when that
// is the new program does the server follow.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	unknown := func() error { return api.Errorf(api.CodeInvalid, "the control protocol has no such method") }
	for _, c := range []struct {
		name     string
		upgrade  func(n *nursery, m *mortalFake) error
		binary   string
		code     api.Code // of the error; empty: none
		says     string
		replaced bool
		lost     int // deaths that are told
	}{
		{"in place", func(n *nursery, m *mortalFake) error { n.become("2"); return nil }, "/new", "", "", false, 0},
		{"an old supervisor is replaced", func(*nursery, *mortalFake) error { return unknown() }, "/new", "", "", true, 1},
		{"the next one dies, an old one comes", func(n *nursery, m *mortalFake) error { n.build = "1"; n.kill(); return nil }, "/new",
			api.CodeFailed, "has adopted everything", false, 1},
		{"the replacement dies, an old one comes", func(*nursery, *mortalFake) error { return unknown() }, "/dies",
			api.CodeFailed, "has adopted everything", true, 1},
		{"refused", func(*nursery, *mortalFake) error { return api.Errorf(api.CodeFailed, "the journal cannot be written") }, "/new",
			api.CodeFailed, "the old supervisor goes on", false, 0},
		{"a path that is none", nil, "new", api.CodeInvalid, "absolute", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
				s.o.Become = Become{Args: []string{"server"}}
				pass(time.Second)
				n.alive.upgrade = func() error { return c.upgrade(n, n.alive) }
				res, err := s.Upgrade(context.Background(), api.UpgradeRequest{Binary: c.binary})
				if c.code == "" && (err != nil || res.To != "2" || res.Replaced != c.replaced) ||
					c.code != "" && (api.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says)) {
					t.Fatalf("%+v, %v", res, err)
				}
				select {
				case path := <-s.moves:
					if c.code != "" || path != c.binary {
						t.Errorf("the server becomes %s", path)
					}
				default:
					if c.code == "" {
						t.Error("the server stays what it is")
					}
				}
				pass(time.Second)
				if lost := m.told(t, "supervisor.lost"); len(lost) != c.lost {
					t.Errorf("told %v", lost)
				}
				if failed := m.told(t, "server.upgrade_failed"); len(failed) != 0 && c.code == "" {
					t.Errorf("told %v", failed)
				}
			})
		})
	}
}

// become has the supervisor be another program, with the same pid.
func (n *nursery) become(build string) {
	n.mu.Lock()
	old := n.alive
	n.alive = &mortalFake{fakeSupervisor: n.f, pid: old.pid, lost: make(chan struct{}), build: build, began: time.Now()}
	n.mu.Unlock()
	old.die()
}

// A server that is part of another program, or ends, cannot become another one.
func TestUpgradeIsRefused(t *testing.T) {
	t.Parallel()
	guarded(t, func(t *testing.T, s *Server, n *nursery, m *memory) {
		req := api.UpgradeRequest{Binary: "/new"}
		if _, err := s.Upgrade(context.Background(), req); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "part of another program") {
			t.Errorf("%v", err)
		}
		s.o.Become = Become{Args: []string{"server"}}
		s.upgrading.Lock()
		if _, err := s.Upgrade(context.Background(), req); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "under way") {
			t.Errorf("%v", err)
		}
		s.upgrading.Unlock()
		s.end.begin()
		if _, err := s.Upgrade(context.Background(), req); api.CodeOf(err) != api.CodeConflict || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("%v", err)
		}
	})
}
