package workers

import (
	"context"
	"regexp"

	"github.com/perdure/perdure/internal/logstore"
)

// AwaitLine reads the output of a process from where q says until a line matches,
// and then calls found, once. Stop ends it and returns when it has ended.
func AwaitLine(dir, name, pattern string, q logstore.Query, found func(), failed func(error)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		match, err := regexp.Compile(pattern)
		if err != nil { // it was checked
			failed(err)
			return
		}
		for line, err := range logstore.Read(ctx, dir, name, q) {
			if err != nil {
				failed(err)
				continue // what is damaged is passed over
			}
			if match.Match(line.Text) {
				found()
				return
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
