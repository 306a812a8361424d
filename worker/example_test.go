package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/perdure/perdure/worker"
)

// The examples run without supervision, where everything succeeds and nothing
// is sent.
func ExampleRun() {
	err := worker.Run(context.Background(), worker.Options{}, func(ctx context.Context, w *worker.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		for n := range 3 {
			if ctx.Err() != nil {
				return ctx.Err() // asked to stop: Perdure knows already
			}
			if err := w.Progress(float64(n+1)/3*100, fmt.Sprintf("file %d of 3", n+1)); err != nil {
				return err
			}
			if err := w.Emit("file.done", map[string]int{"file": n + 1}); err != nil {
				return err
			}
		}
		return nil // Run waits until the events are durable
	})
	fmt.Println(err)
	// Output: <nil>
}

func ExampleStart() {
	w, err := worker.Start(worker.Options{
		Commands: map[string]worker.CommandFunc{
			"resize": func(_ context.Context, data json.RawMessage) (any, error) {
				var size struct{ Width int }
				return size, json.Unmarshal(data, &size)
			},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	slog.New(w.Handler(nil)).Info("begun", "supervised", w.Supervised())
	fmt.Println(w.EmitAcked(ctx, "begun", nil), w.Close(ctx))
	// Output: <nil> <nil>
}

// A program whose main loop may hang sends its heartbeats by hand.
func ExampleWorker_Heartbeat() {
	w, err := worker.Start(worker.Options{ManualHeartbeat: true})
	if err != nil {
		log.Fatal(err)
	}
	for _, job := range []string{"a", "b"} {
		w.Heartbeat() // as often as one likes: few are sent
		fmt.Println(job)
	}
	if err := w.Close(context.Background()); err != nil {
		log.Fatal(err)
	}
	// Output:
	// a
	// b
}
