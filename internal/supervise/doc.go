// Package supervise decides what happens to a supervised process. It is pure:
// Step takes a Spec, a State and an Input and returns the new State, the events
// to tell and the effects to execute. It reads no clock, draws no random number,
// starts no goroutine and touches no file; time and chance are inputs.
//
// The actor in internal/supervisor owns the State. It persists the result
// BEFORE it executes the effects, and it feeds every outcome back as an Input
// with the generation that it is about. An input about another generation, or
// from a timer that is no longer armed, is dropped in Step, in one place.
package supervise
