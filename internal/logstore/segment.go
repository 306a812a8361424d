package logstore

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	currentName = "current.log"
	tempSuffix  = ".tmp"
	// maxPackedIndex bounds what is unpacked into memory; what is beyond it is
	// read without times.
	maxPackedIndex = 64 << 20
)

// segment is one segment in a directory.
type segment struct {
	base  int64
	plain bool // BASE.log is there
	gz    bool // BASE.log.gz is there
}

func segmentPath(dir string, base int64, suffix string) string {
	return filepath.Join(dir, fmt.Sprintf("%016x", base)+suffix)
}

// parseSegment reads the name of a data file.
func parseSegment(name string) (base int64, gz, ok bool) {
	rest, found := strings.CutSuffix(name, ".log")
	if !found {
		if rest, gz = strings.CutSuffix(name, ".log.gz"); !gz {
			return 0, false, false
		}
	}
	if len(rest) != 16 {
		return 0, false, false
	}
	v, err := strconv.ParseUint(rest, 16, 63)
	return int64(v), gz, err == nil
}

// listSegments returns the segments of a directory by base. A directory that
// is not there has none.
func listSegments(dir string) ([]segment, error) {
	names, err := readNames(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list the logs: %w", err)
	}
	var list []segment
	for _, n := range names {
		base, gz, ok := parseSegment(n)
		if !ok {
			continue
		}
		i := slices.IndexFunc(list, func(s segment) bool { return s.base == base })
		if i < 0 {
			i, list = len(list), append(list, segment{base: base})
		}
		list[i].gz = list[i].gz || gz
		list[i].plain = list[i].plain || !gz
	}
	slices.SortFunc(list, func(a, b segment) int { return int(min(1, max(-1, a.base-b.base))) })
	return list, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

// openSegment is a segment that is being read.
type openSegment struct {
	base int64
	file *os.File
	zip  *gzip.Reader // nil: plain
	zpos int64        // global offset of the next byte from zip
	idx  index
	side *os.File
	mod  time.Time // the time of last resort
}

// openSegmentAt opens the segment with this base. The two forms of a segment
// have the same content, and one of them is there until it is removed.
func openSegmentAt(dir string, base int64) (*openSegment, error) {
	g := &openSegment{base: base, zpos: base}
	f, err := os.Open(segmentPath(dir, base, ".log"))
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.Open(segmentPath(dir, base, ".log.gz")); err == nil {
			g.zip, err = gzip.NewReader(f)
		}
	}
	if err != nil {
		if f != nil {
			_ = f.Close() // it was only read
		}
		return nil, fmt.Errorf("cannot read a log segment: %w", err)
	}
	g.file = f
	if st, err := f.Stat(); err == nil {
		g.mod = st.ModTime()
	}
	if err := g.openIndex(dir); err != nil {
		g.close()
		return nil, err
	}
	return g, nil
}

// openIndex opens the index. A segment without one is readable.
func (g *openSegment) openIndex(dir string) error {
	side, err := os.Open(segmentPath(dir, g.base, ".idx"))
	if err == nil {
		g.side, g.idx = side, index{r: side}
		return nil
	}
	if side, err = os.Open(segmentPath(dir, g.base, ".idx.gz")); err == nil {
		defer side.Close()
		var data []byte
		z, zerr := gzip.NewReader(side)
		if zerr == nil {
			// A damaged end leaves what came before it; lines behind it have no time of their own.
			data, _ = io.ReadAll(io.LimitReader(z, maxPackedIndex))
		}
		g.idx = index{r: bytes.NewReader(data)}
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("cannot read a log index: %w", err)
}

// readAt reads at a global offset; io.EOF says that there is nothing yet. A
// packed segment is read forwards: a step back unpacks it again.
func (g *openSegment) readAt(b []byte, off int64) (int, error) {
	if g.zip == nil {
		n, err := g.file.ReadAt(b, off-g.base)
		if n > 0 {
			err = nil
		}
		return n, err
	}
	if off < g.zpos {
		if _, err := g.file.Seek(0, io.SeekStart); err != nil {
			return 0, err
		}
		if err := g.zip.Reset(g.file); err != nil {
			return 0, err
		}
		g.zpos = g.base
	}
	if off > g.zpos {
		n, err := io.CopyN(io.Discard, g.zip, off-g.zpos)
		g.zpos += n
		if err != nil {
			return 0, err
		}
	}
	for {
		n, err := g.zip.Read(b)
		g.zpos += int64(n)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// size returns the bytes of a plain segment, and false for a packed one.
func (g *openSegment) size() (int64, bool) {
	if g.zip != nil {
		return 0, false
	}
	st, err := g.file.Stat()
	if err != nil {
		return 0, false
	}
	return st.Size(), true
}

// length returns the bytes of a segment, unpacking it if it must.
func (g *openSegment) length() (int64, error) {
	if n, ok := g.size(); ok {
		return n, nil
	}
	_, err := g.readAt(make([]byte, 1), math.MaxInt64>>1)
	if !errors.Is(err, io.EOF) {
		return g.zpos - g.base, err
	}
	return g.zpos - g.base, nil
}

func (g *openSegment) close() {
	_ = g.file.Close() // it was only read, like the next one
	if g.side != nil {
		_ = g.side.Close()
	}
}
