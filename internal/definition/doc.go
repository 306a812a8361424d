// Package definition knows what a process definition means: the presets, the
// defaults, what is allowed and what belongs together, and how a definition
// looks to the packages that act on it (supervise, proc).
//
// It is pure: no files, no clock, no environment of its own. Load and Validate
// a definition as it was written; Fill it before it is acted on.
package definition
