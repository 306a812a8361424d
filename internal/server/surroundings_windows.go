package server

import "github.com/perdure/perdure/api"

// surroundings tells what of the system could stand in the way.
func surroundings(string, int) []api.Finding {
	return []api.Finding{finding("error", "see docs/reference/platforms.md", "processes are not supervised on Windows yet")}
}
