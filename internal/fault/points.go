package fault

// Points lists the name of every point of the program. A test holds that it is
// complete and that no name in it is stale.
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
