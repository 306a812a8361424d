package supervisor

import "os"

// upgradeSignals are none: Windows has no such signals.
func upgradeSignals() []os.Signal { return nil }
