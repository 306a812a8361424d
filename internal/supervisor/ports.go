package supervisor

import (
	"context"
	"iter"
	"os"
	"time"

	"github.com/perdure/perdure/internal/journal"
	"github.com/perdure/perdure/internal/logstore"
	"github.com/perdure/perdure/internal/probe"
	"github.com/perdure/perdure/internal/proc"
)

// The interfaces below are what the actors need of the rooms beneath. The real
// ones are adapted in open.go; tests of the actors put a simulated world in
// their place.

// host starts, adopts and finds operating system processes.
type host interface {
	start(spec proc.Spec, notify func(proc.Notice)) (live, error)
	adopt(id proc.Identity, notify func(proc.Notice)) (live, error)
	// adoptHeld adopts by a pidfd that somebody has held, and by the exit that he
	// knows, if any. It takes the pidfd over, except with an error.
	adoptHeld(id proc.Identity, fd int, known *proc.Exit, notify func(proc.Notice)) (live, error)
	// told brings an exit of what was adopted, relayed whether that may come.
	told(id proc.Identity, exit proc.Exit)
	relayed(on bool)
	// find returns what carries a marker in its environment and lives.
	find(marker string) []proc.Identity
	// variable is one of the environment of a live process.
	variable(id proc.Identity, key string) string
	// sweep ends what a dead leader has left and says how much of it still lives.
	sweep(id proc.Identity) (live int, err error)
	run(ctx context.Context, spec proc.Spec, maxOutput int) (proc.Exit, []byte, error)
	release(name string) error
	// dead are those who led a session in a cgroup and are not waited for yet.
	dead(cgroup string) []proc.Identity
	// cgroupOf is the folder of the cgroup of a process; empty without cgroups.
	cgroupOf(name string) string
	// owns says whether a process of the system belongs to a generation, tree lists
	// what does, and sample measures it, with files its open descriptors too.
	owns(id *proc.Identity, marker string, pid int) bool
	tree(id *proc.Identity) []int
	sample(id proc.Identity, files bool) (use proc.Sample, open int, err error)
	// pause ends the reaping: no notice comes any more. What ends from now on is
	// for the next supervisor.
	pause()
}

// live is one process that has been started or adopted.
type live interface {
	Identity() proc.Identity
	PidFD() (int, error)
	Signal(name string) error
	Kill() error
}

// outputs makes the places that output goes to.
type outputs interface {
	// open takes FIFOs over that somebody has held, except with an error.
	open(name string, r logstore.Retention, held ...int) (sink, error)
	remove(name string) error
}

// sink takes the output of one process.
type sink interface {
	ChildEnds() (stdout, stderr *os.File, err error)
	FIFOs() ([]int, error)
	Drain() error
	Configure(r logstore.Retention)
	Close() error
}

// log is the journal.
type log interface {
	Write(key string, payload []byte) (uint64, error)
	WriteDelete(key string, payload []byte) (uint64, error)
	// Durable waits until an entry is durable, where the settings ask for that
	// before anything is begun.
	Durable(seq uint64) error
	SetSyncEvery(every time.Duration)
	FollowBatches(ctx context.Context, after uint64, o journal.BatchOptions) iter.Seq2[[]journal.Frame, error]
	Ack(seq uint64) error
	LastSeq() uint64
	// Size is what it takes on the disk, in bytes.
	Size() int64
}

// prober asks probes.
type prober interface {
	Start(spec probe.Spec, report func(probe.Result)) (stop func(), err error)
	// Close ends all asking; no report comes any more.
	Close()
}
