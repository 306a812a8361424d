//go:build !faults

package fault

// Enabled says whether points do anything in this build.
const Enabled = false

// Point does nothing and returns nil in a build without the tag "faults".
func Point(string) error { return nil }

// Here does nothing in a build without the tag "faults".
func Here(string) {}

// Boot returns nothing in a build without the tag "faults".
func Boot() string { return "" }
