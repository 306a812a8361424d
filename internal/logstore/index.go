package logstore

import (
	"encoding/binary"
	"io"
)

// The form of an index, of which every entry has 16 bytes, little endian:
//
//	bits 0-47   offset in the segment
//	bits 48-63  tag: 1 stdout, 2 stderr, 3 end of a generation
//	bytes 8-15  time in microseconds since 1970 UTC
//
// A reader ignores entries with another tag and entries that step back.
const (
	entrySize = 16
	// blockEntries is how many entries a reader takes at once.
	blockEntries = 256
)

const (
	tagStdout uint16 = 1
	tagStderr uint16 = 2
	// tagBreak ends the lines that are open in both streams: what comes next is
	// of another process and no continuation.
	tagBreak uint16 = 3
)

// offsetMask is also the greatest offset in a segment.
const offsetMask = 1<<48 - 1

type entry struct {
	off    int64
	micros int64
	tag    uint16
}

func (e entry) valid() bool { return e.tag >= tagStdout && e.tag <= tagBreak }

func (e entry) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(e.off)&offsetMask|uint64(e.tag)<<48)
	return binary.LittleEndian.AppendUint64(b, uint64(e.micros))
}

func parseEntry(b []byte) entry {
	v := binary.LittleEndian.Uint64(b)
	return entry{off: int64(v & offsetMask), tag: uint16(v >> 48), micros: int64(binary.LittleEndian.Uint64(b[8:]))}
}

// index reads entries by number, a block at a time. It believes nothing: what
// is cut off or makes no sense is an entry that is not valid.
type index struct {
	r     io.ReaderAt // nil: no index
	block []byte
	first int // number of the first entry in block
}

// at returns the entry with number i; false means that there is none (yet).
func (x *index) at(i int) (entry, bool) {
	if x.r == nil || i < 0 {
		return entry{}, false
	}
	if k := (i - x.first) * entrySize; k >= 0 && k+entrySize <= len(x.block) {
		return parseEntry(x.block[k:]), true
	}
	if x.block == nil {
		x.block = make([]byte, 0, blockEntries*entrySize)
	}
	// Blocks are aligned, so that walking backwards reads each block once.
	first := i - i%blockEntries
	n, err := x.r.ReadAt(x.block[:cap(x.block)], int64(first)*entrySize)
	if err != nil && n == 0 {
		return entry{}, false
	}
	x.block, x.first = x.block[:n-n%entrySize], first
	if k := (i - first) * entrySize; k+entrySize <= len(x.block) {
		return parseEntry(x.block[k:]), true
	}
	return entry{}, false
}

// count returns the number of entries by doubling and halving; it needs no size
// of the file, which may grow meanwhile.
func (x *index) count() int {
	hi := 1
	for _, ok := x.at(hi - 1); ok; _, ok = x.at(hi - 1) {
		hi *= 2
	}
	return x.search(hi/2, hi, func(entry) bool { return false })
}

// search returns the first number in [lo, hi) for which there is no entry or f
// holds. A damaged index gives some number of the range.
func (x *index) search(lo, hi int, f func(entry) bool) int {
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if e, ok := x.at(m); !ok || (e.valid() && f(e)) {
			hi = m
		} else {
			lo = m + 1
		}
	}
	return lo
}

// covering returns the number of the last entry at or before off, or 0.
func (x *index) covering(off int64) int {
	return max(0, x.search(0, x.count(), func(e entry) bool { return e.off > off })-1)
}
