package supervise

import "slices"

// Teardown orders the end of a set of processes in reverse order of dependency
// (N24): one is due when nothing of the set that depends on it, directly or
// through others, is left. It costs no more than there are dependencies,
// however many processes end one after the other. It belongs to one goroutine.
type Teardown struct {
	graph   *Graph
	waiting map[string]int // how many direct dependents are not yet clear
	gone    map[string]bool
	left    int
}

// Teardown returns the teardown of set and what of it is due at once, in an
// order that is the same each time. Processes that the graph does not know have
// no dependents.
func (g *Graph) Teardown(set []string) (*Teardown, []string) {
	t := &Teardown{graph: g, waiting: make(map[string]int, len(set)), gone: map[string]bool{}}
	for _, name := range set {
		t.waiting[name] = 0
	}
	t.left = len(t.waiting)
	for name := range t.waiting {
		for _, d := range g.dependents[name] {
			if _, in := t.waiting[d]; in {
				t.waiting[name]++
			}
		}
	}
	var due []string
	for name, n := range t.waiting {
		if n == 0 {
			due = append(due, name)
		}
	}
	slices.Sort(due)
	return t, due
}

// Left is how many of the set are not gone.
func (t *Teardown) Left() int { return t.left }

// Gone notes that nothing of a process lives any more and that nothing of it
// will, and returns what is due now for it. To say it again does nothing.
func (t *Teardown) Gone(name string) []string {
	if _, in := t.waiting[name]; !in || t.gone[name] {
		return nil
	}
	t.gone[name] = true
	t.left--
	if t.waiting[name] > 0 {
		return nil // those who depend on it come first, though it is gone
	}
	var due []string
	for clear := []string{name}; len(clear) > 0; {
		name, clear = clear[0], clear[1:]
		for _, on := range t.graph.on(name) {
			n, in := t.waiting[on]
			if !in {
				continue
			}
			t.waiting[on] = n - 1
			switch {
			case n > 1:
			case t.gone[on]:
				clear = append(clear, on)
			default:
				due = append(due, on)
			}
		}
	}
	return due
}

// on returns the processes that name depends on, each once.
func (g *Graph) on(name string) []string {
	var out []string
	for _, d := range g.deps[name] {
		if d.Process != "" && !slices.Contains(out, d.Process) {
			out = append(out, d.Process)
		}
	}
	return out
}
