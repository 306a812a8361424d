package sockpath

import (
	"errors"
	"net"
)

// Hand is not possible here.
func Hand(net.Listener) (int, error) { return -1, errors.ErrUnsupported }

// CloseHand does nothing here.
func CloseHand(int) {}
