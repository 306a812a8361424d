package supervisor

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/perdure/perdure/api"
	"github.com/perdure/perdure/internal/proc"
)

func limited(d *api.Definition) {
	none := api.Duration(0)
	d.Limits = &api.Limits{Memory: 1000, Interval: api.Duration(time.Second)}
	d.Backoff.Initial = &none
}

// A process that is over its limit is ended, and the next generation is measured anew.
func TestOverALimitIsEnded(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		s := w.open()
		apply(t, s, def("web", limited))
		pass(2500 * time.Millisecond)
		if n := w.count("measure"); n != 2 || w.count("start web") != 1 {
			t.Errorf("measured %d times: %q", n, w.story())
		}
		w.mu.Lock()
		w.uses = proc.Sample{RSS: 1001}
		w.mu.Unlock()
		pass(time.Second)
		if w.count("append web limits_exceeded,stopping") != 1 || w.count("start web") != 2 {
			t.Errorf("%q", w.story())
		}
		closed(t, s)
	})
}

// A measurement that is under way while its generation ends says nothing of the
// next one, which is measured as often as the one before.
func TestLateMeasurementOfAnOlderGeneration(t *testing.T) {
	t.Parallel()
	inWorld(t, func(t *testing.T, w *world) {
		under, goOn := make(chan struct{}), make(chan struct{})
		var first sync.Once
		w.onMeasure = func() {
			first.Do(func() {
				close(under)
				<-goOn
			})
		}
		w.uses = proc.Sample{RSS: 5000}
		s := w.open()
		apply(t, s, def("web", limited))
		<-under
		w.mu.Lock()
		w.uses = proc.Sample{}
		w.mu.Unlock()
		w.process("web").end(1, "")
		synctest.Wait()
		close(goOn)
		synctest.Wait()
		if got := state(t, s, "web"); got.State != api.StateRunning || got.Generation != 2 {
			t.Errorf("%s in generation %d", got.State, got.Generation)
		}
		before := w.count("measure")
		pass(10500 * time.Millisecond)
		if n := w.count("measure") - before; n != 10 {
			t.Errorf("measured %d times in 10 intervals", n)
		}
		closed(t, s)
	})
}
