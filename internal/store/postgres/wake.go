package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"
)

// eventTopic is the topic of the event log.
const eventTopic = "event"

// Wake has the other nodes told about a topic.
func (s *Store) Wake(topic string) {
	s.mu.Lock()
	s.topics[topic] = true
	s.mu.Unlock()
	select {
	case s.tell <- struct{}{}:
	default:
	}
}

// OnWake registers f for a topic.
func (s *Store) OnWake(topic string, f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onWake[topic] = append(s.onWake[topic], f)
}

func (s *Store) lookNow() {
	select {
	case s.look <- struct{}{}:
	default:
	}
}

// channel is the name under which nodes of this schema hear each other.
func (s *Store) channel() string { return "perdure_" + s.o.Schema }

// notify tells topics. While one NOTIFY is on its way the next ones become one:
// its commit takes a lock over the whole server, so none is part of a transaction
// that does anything else.
func (s *Store) notify() {
	for {
		select {
		case <-s.tell:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		topics := make([]string, 0, len(s.topics))
		for t := range s.topics {
			topics = append(topics, t)
		}
		clear(s.topics)
		s.mu.Unlock()
		// When it fails the others look by themselves.
		_, _ = s.pool.Exec(s.ctx, `SELECT pg_notify($1, t) FROM unnest($2::text[]) t`, s.channel(), topics)
	}
}

// listen hears the other nodes. After each loss of its connection it takes it that
// everything was missed.
func (s *Store) listen() {
	for s.ctx.Err() == nil {
		if err := s.listenOnce(s.ctx); err != nil {
			select {
			case <-time.After(s.o.Poll):
			case <-s.ctx.Done():
			}
		}
	}
}

func (s *Store) listenOnce(ctx context.Context) error {
	conn, err := pgx.ConnectConfig(ctx, s.pool.Config().ConnConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it only listened
	if _, err := conn.Exec(ctx, `LISTEN `+pgx.Identifier{s.channel()}.Sanitize()); err != nil {
		return err
	}
	s.mu.Lock()
	var all []func()
	for _, fs := range s.onWake {
		all = append(all, fs...)
	}
	s.mu.Unlock()
	for _, f := range all {
		f()
	}
	s.lookNow()
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		if n.Payload == eventTopic {
			s.lookNow()
			continue
		}
		s.mu.Lock()
		fs := s.onWake[n.Payload]
		s.mu.Unlock()
		for _, f := range fs {
			f()
		}
	}
}
