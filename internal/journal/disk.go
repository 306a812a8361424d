package journal

import (
	"io"
	"os"
)

// disk is all that changes files. The tests put one in its place that forgets,
// as a power cut does, what was not made durable.
type disk interface {
	// open opens a file for reading and writing; made anew when create is set.
	open(path string, create bool) (file, error)
	rename(from, to string) error
	remove(path string) error
	// syncDir makes the names in a directory durable. Systems that cannot do so
	// say an error that is no loss for a running system, so it is for the caller
	// to weigh.
	syncDir(dir string) error
}

// file is an open file. Sync makes its bytes and its size durable.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// osDisk is the real one.
type osDisk struct{}

// osFile syncs no more than reading back takes.
type osFile struct{ *os.File }

func (f osFile) Sync() error { return datasync(f.File) }

func (osDisk) open(path string, create bool) (file, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osDisk) rename(from, to string) error { return os.Rename(from, to) }

func (osDisk) remove(path string) error { return os.Remove(path) }

func (osDisk) syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return err
}
