package server

import "os"

// ours has nothing to ask for on Windows: access lists guard the directory.
func ours(string, os.FileInfo) error { return nil }
