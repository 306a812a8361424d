package fault

// Points lists the name of every point of the program. It is generated from
// the sources by make docs.
func Points() []string {
	return []string{
		"journal.ack.before_remove",
		"journal.append.after",
		"journal.append.before",
		"journal.rotate.after_rename",
		"journal.rotate.before_rename",
		"journal.rotate.begin",
		"journal.sync",
	}
}
