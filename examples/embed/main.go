// Command embed keeps a worker alive from inside a Go program.
//
//	go run ./examples/embed
//
// It keeps its state in .perdure of the working directory.
package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/perdure/perdure"
	"github.com/perdure/perdure/api"
)

func main() {
	perdure.Init() // first: this program is its own supervisor, too
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "embed:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	sys, err := perdure.New(ctx, perdure.Options{})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		tell(ctx, sys)
	}()
	err = work(ctx, sys)
	stopErr := sys.Stop(context.WithoutCancel(ctx), 10*time.Second)
	cancel()
	<-told
	if err != nil {
		return err
	}
	return stopErr
}

// tell prints what happens until ctx ends.
func tell(ctx context.Context, sys *perdure.System) {
	for e, err := range sys.Events.Subscribe(ctx, "process.*", 0) {
		if err != nil {
			return // the system is closed
		}
		fmt.Printf("event %d: %s %s (generation %d)\n", e.Seq, e.Name, e.Type, e.Generation)
	}
}

// work defines a worker, starts two of it, restarts one and stops the other.
func work(ctx context.Context, sys *perdure.System) error {
	err := sys.Processes.Define(api.Definition{
		Name: "worker", Command: api.Command{"sh", "-c", `echo "$WHO works"; exec sleep 1000`},
		Restart: api.RestartAlways,
	})
	if err != nil {
		return err
	}
	for _, who := range []string{"alice", "bob"} {
		_, err := sys.Processes.Spawn(ctx, "worker", perdure.SpawnOptions{
			Name: "worker-" + who, Env: map[string]string{"WHO": who}, Metadata: map[string]any{"tenant": who},
		})
		if err != nil {
			return err
		}
		p, err := sys.Processes.Wait(ctx, "worker-"+who, "running", time.Minute)
		if err != nil {
			return err
		}
		fmt.Printf("%s runs with pid %d for %v\n", p.Name, p.PID, p.Metadata["tenant"])
	}
	p, err := sys.Processes.Restart(ctx, "worker-alice")
	if err != nil {
		return err
	}
	fmt.Printf("%s is generation %d now\n", p.Name, p.Generation)
	_, err = sys.Processes.Stop(ctx, "worker-bob")
	return err
}
