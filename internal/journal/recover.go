package journal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// recover lists the segments, replays as few as possible and opens the newest
// for writing. Called from Open alone.
func (j *Journal) recover() (Report, error) {
	if err := j.list(); err != nil {
		return Report{}, err
	}
	var rep Report
	if len(j.segs) == 0 {
		return rep, j.rotate()
	}
	scans, err := j.replay()
	if err != nil {
		return rep, err
	}
	for _, s := range scans {
		rep.Repairs = append(rep.Repairs, s.repairs...)
	}
	last := scans[len(scans)-1]
	j.seq = max(j.newest().base-1, last.lastSeq)
	j.newest().size = last.end
	if err := j.openNewest(last); err != nil {
		return rep, err
	}
	newBoot := last.boot == 0 || last.boot != j.boot
	if last.tailLost || newBoot && !last.clean {
		j.seq += SeqJump
		rep.Jumped = true
	}
	if rep.Jumped || newBoot || last.damaged || last.clean {
		// A fresh segment bears this boot's name and a snapshot without holes, and
		// does not end with the mark of Close: a power cut that takes all that is
		// appended from now on must not look like that end. On a full disk it is
		// made later, by an append.
		if err := j.rotate(); err != nil {
			j.distrust = true
		}
	}
	return rep, nil
}

// list finds the segments and removes what a crash left of unfinished ones.
func (j *Journal) list() error {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(j.dir, e.Name())
		if strings.HasSuffix(e.Name(), tempSuffix) {
			// What cannot be removed is only in the way: its name is reused.
			_ = j.disk.remove(path)
			continue
		}
		base, ok := parseSegmentName(e.Name())
		if !ok || !e.Type().IsRegular() {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return fmt.Errorf("cannot read the journal: %w", err)
		}
		j.segs = append(j.segs, segment{origin: &origin{base: base, path: path}, size: info.Size()})
	}
	slices.SortFunc(j.segs, func(a, b segment) int {
		if a.base < b.base {
			return -1
		}
		return 1
	})
	return nil
}

// Check returns an error, a *VersionError where it is that, if this program cannot
// read the journal in dir. It changes nothing, so that it may be asked while
// another program has the journal open. A journal that is not there can be read.
func Check(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read the journal: %w", err)
	}
	for _, e := range entries {
		if _, ok := parseSegmentName(e.Name()); !ok || !e.Type().IsRegular() {
			continue
		}
		path := filepath.Join(dir, e.Name())
		head, err := readHead(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // it was removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("cannot read the journal: %w", err)
		}
		if version, _, ok := decodeSegmentHeader(head); ok && version != FormatVersion {
			return &VersionError{File: path, Version: version}
		}
	}
	return nil
}

// readHead returns the head of a segment, or as much of it as there is.
func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // it was only read
	head := make([]byte, segmentHeader)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// segmentScan is what one segment tells.
type segmentScan struct {
	boot     uint64
	snapshot bool // its snapshot is whole: older segments add nothing
	damaged  bool // something in it was skipped
	tailLost bool // a whole frame at its end is damaged
	clean    bool // it ends with the mark of Close
	lastSeq  uint64
	end      int64 // behind the last sound frame
	fileSize int64
	frames   []framePos
	repairs  []Repair
}

type framePos struct {
	key  string
	kind byte
	pos  position
}

// replay reads backwards to the first segment with a whole snapshot and applies
// the frames from there on. The result holds at least the newest segment.
func (j *Journal) replay() ([]segmentScan, error) {
	var scans []segmentScan
	for i := len(j.segs) - 1; i >= 0; i-- {
		s, err := j.scanSegment(j.segs[i], i == len(j.segs)-1)
		if err != nil {
			return nil, err
		}
		scans = append(scans, s)
		if s.snapshot {
			break
		}
	}
	slices.Reverse(scans)
	for _, s := range scans {
		j.apply(s)
	}
	return scans, nil
}

func (j *Journal) apply(s segmentScan) {
	if s.snapshot {
		clear(j.latest)
		j.live = 0
	}
	for _, f := range s.frames {
		old, known := j.latest[f.key]
		if known && f.pos.seq < old.seq {
			continue
		}
		if f.kind == kindDelete {
			j.forget(f.key)
			continue
		}
		j.remember(f.key, f.pos)
	}
}

func (j *Journal) remember(key string, p position) {
	j.live += p.size - j.latest[key].size
	j.latest[key] = p
}

func (j *Journal) forget(key string) {
	j.live -= j.latest[key].size
	delete(j.latest, key)
}

// scanSegment reads one segment. Only the newest may have a torn tail that is
// no damage.
func (j *Journal) scanSegment(g segment, newest bool) (segmentScan, error) {
	f, err := os.Open(g.path)
	if err != nil {
		return segmentScan{}, fmt.Errorf("cannot read the journal: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	out := segmentScan{fileSize: g.size, end: min(segmentHeader, g.size)}
	name := filepath.Base(g.path)
	headBytes := make([]byte, segmentHeader)
	n, err := io.ReadFull(f, headBytes)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return out, fmt.Errorf("cannot read the journal: %w", err)
	}
	version, boot, ok := decodeSegmentHeader(headBytes[:n])
	if ok && version != FormatVersion {
		return out, &VersionError{File: g.path, Version: version}
	}
	if !ok {
		out.damaged = true
		out.repairs = append(out.repairs, Repair{File: name, Bytes: int64(n), Kind: "header"})
	}
	out.boot = boot
	sc := &scanner{r: f, off: segmentHeader, limit: g.size}
	for {
		it, err := sc.next()
		if err != nil {
			return out, fmt.Errorf("cannot read %s: %w", g.path, err)
		}
		if it.found == foundEnd {
			return out, nil
		}
		out.take(g.origin, name, it, newest && it.end == g.size)
	}
}

// take adds one item of a scan. tail says that it is the last of the newest
// segment.
func (s *segmentScan) take(from *origin, name string, it item, tail bool) {
	if it.found != foundFrame {
		r := Repair{File: name, Offset: it.off, Bytes: it.end - it.off, Kind: "corrupt"}
		switch {
		case tail && it.found == foundTorn:
			r.Kind = "torn_tail"
		case tail:
			r.Kind = "corrupt_tail"
			s.damaged, s.tailLost = true, true
		default:
			s.damaged = true
		}
		s.repairs = append(s.repairs, r)
		return
	}
	s.end = it.end
	s.clean = it.head.kind == kindClose
	switch it.head.kind {
	case kindSnapEnd:
		s.snapshot = !s.damaged
	case kindData, kindDelete:
		s.lastSeq = max(s.lastSeq, it.head.seq)
		fallthrough
	case kindSnapshot:
		s.frames = append(s.frames, framePos{
			key: string(it.body[:it.head.keyLen]), kind: it.head.kind,
			pos: position{seg: from, off: it.off, size: it.head.size(), seq: it.head.seq},
		})
	}
}

// openNewest opens the newest segment for writing and cuts its damaged tail off.
func (j *Journal) openNewest(s segmentScan) error {
	f, err := j.disk.open(j.newest().path, false)
	if err != nil {
		return fmt.Errorf("cannot open the journal for writing: %w", err)
	}
	j.file = f
	if s.fileSize > s.end {
		if err := f.Truncate(s.end); err != nil {
			return fmt.Errorf("cannot cut the damaged end of the journal off: %w", err)
		}
	}
	if s.end < segmentHeader {
		j.distrust = true // not even the head is there; an append begins a segment
	}
	j.setRotateAt()
	return nil
}
