package journal

import (
	"bytes"
	"testing"
)

func BenchmarkAppend(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 600)
	keys := []string{"proc-a", "proc-b", "proc-c", "proc-d"}
	j, _ := mustOpen(b, b.TempDir(), Options{SyncEvery: DefaultSyncEvery})
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := j.Append(keys[i%len(keys)], payload); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAppendDurable appends from many goroutines with an fsync each, shared.
func BenchmarkAppendDurable(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 600)
	j, _ := mustOpen(b, b.TempDir(), Options{})
	b.SetParallelism(64)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := j.Append("k", payload); err != nil {
				b.Error(err)
			}
		}
	})
}
