package sockpath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxPath is the longest path of a socket address: sun_path has 108 bytes with
// the zero at its end (unix(7)).
const maxPath = 107

// withShortPath calls use with a path that fits into a socket address. A long
// one goes through a descriptor of its folder, which is open only during use:
// the address is needed for bind and connect alone.
func withShortPath(path string, use func(string) error) error {
	if len(path) <= maxPath {
		return use(path)
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: filepath.Dir(path), Err: err}
	}
	short := fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path))
	if len(short) > maxPath {
		err = fmt.Errorf("the name %s is too long for a socket: shorten it to 80 bytes", filepath.Base(path))
	} else {
		err = use(short)
	}
	return errors.Join(err, unix.Close(fd))
}
