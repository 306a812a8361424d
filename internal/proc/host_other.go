//go:build !linux

package proc

// Sample is SampleTree; open files are not counted here.
func (h *Host) Sample(id Identity, _ bool) (Sample, int, error) {
	s, err := SampleTree(id)
	return s, 0, err
}

// Dead finds nothing.
func (h *Host) Dead(string) []Identity { return nil }

// CgroupOf returns nothing.
func (h *Host) CgroupOf(string) string { return "" }

// Owns says no: who a process belongs to is not looked up here.
func (h *Host) Owns(*Identity, string, int) bool { return false }

// Tree lists nothing.
func (h *Host) Tree(*Identity) []int { return nil }
