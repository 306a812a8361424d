//go:build unix

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/perdure/perdure/worker"
)

// playEmitter emits as many numbered events as EMIT says, as fast as they are
// taken, waits for the acks of all, makes the file "emitted", and is there then.
func playEmitter() int {
	ctx := context.Background()
	all, err := strconv.Atoi(os.Getenv("EMIT"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 64
	}
	w, err := worker.Start(worker.Options{Commands: map[string]worker.CommandFunc{
		"echo": func(_ context.Context, data json.RawMessage) (any, error) { return data, nil },
	}})
	if err == nil {
		err = w.Ready()
	}
	for n := 1; err == nil && n <= all; n++ {
		if err = w.Emit("tick", map[string]int{"n": n}); err == nil && n%100 == 0 {
			err = w.Flush(ctx)
		}
	}
	if err == nil {
		err = w.Flush(ctx)
	}
	if err == nil {
		err = os.WriteFile("emitted", nil, 0o600)
	}
	if err == nil {
		rest() // it is asked by commands now
	}
	fmt.Fprintln(os.Stderr, err)
	return 3
}

// playPlain is a client of the plain protocol, written down to the bytes: one
// connection after another, a line that ends with CR and LF, times with fractions,
// and an end that it announces by closing its side.
func playPlain() int {
	err := func() error {
		for i := range 2 {
			c, err := net.Dial("unix", os.Getenv("DONKEYLABS_SOCKET_PATH"))
			if err != nil {
				return err
			}
			id := os.Getenv("DONKEYLABS_PROCESS_ID")
			_, err = fmt.Fprintf(c, `{"type":"connected","processId":%q,"timestamp":1754000000000.5}`+"\r\n"+
				`{"type":"event","event":"step","data":{"n":%d},"processId":%q,"timestamp":1754000000001}`+"\n"+
				`{"type":"stats","stats":{"cpu":{"percent":1.5}},"processId":%q,"timestamp":2}`+"\n", id, i, id, id)
			if err == nil {
				err = c.(*net.UnixConn).CloseWrite()
			}
			if err != nil {
				return err
			}
			if _, err := bufio.NewReader(c).ReadByte(); err == nil {
				return fmt.Errorf("it was told something, and nobody has sent anything")
			}
		}
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 3
	}
	rest()
	return 0
}

// rest waits for a signal that nobody sends.
func rest() {
	forever := make(chan os.Signal, 1)
	signal.Notify(forever, syscall.SIGUSR1)
	<-forever
}
