package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"testing"
)

// FuzzServe writes anything to a connection behind the hello. Nothing may panic,
// hang or outlive the connection.
func FuzzServe(f *testing.F) {
	for _, s := range []string{
		`{"id":1,"method":"info"}` + "\n",
		`{"id":1,"method":"apply","params":{"definitions":[{"name":"a"}]}}` + "\n",
		`{"id":1,"method":"follow","params":{"seq":1}}` + "\n",
		`{"id":1,"method":"command","params":{"verb":"block"}}` + "\n" + `{"id":1,"method":"cancel"}` + "\n",
		"{}\n[]\nnull\n\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		ours, theirs := net.Pipe()
		c := &serverConn{
			conn: theirs, sup: newFake(), cancels: map[uint64]context.CancelFunc{},
			opts: ServeOptions{MaxInFlight: 4, Log: discard()},
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = c.serveRequests(t.Context())
		}()
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			_, _ = io.Copy(io.Discard, ours)
		}()
		_, _ = fmt.Fprintf(ours, "{\"version\":%d}\n", Version)
		_, _ = ours.Write(data)
		_ = ours.Close()
		<-done
		<-drained
	})
}
