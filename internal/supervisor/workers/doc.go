// Package workers is what the supervisor has of the workers of its processes:
// where they connect, what their programs are told in the environment, and what
// becomes of what they say. It decides nothing and writes nothing: the actor of
// the process does both.
package workers
