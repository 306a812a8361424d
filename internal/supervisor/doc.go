// Package supervisor acts on what internal/supervise decides. It holds one
// actor per process, the journal in which every state and event is written
// before its effects are executed, and the dependencies between processes. It
// implements control.Supervisor and needs no server to go on.
//
// An actor is a mailbox that is drained by at most one goroutine at a time; a
// process that rests has no goroutine. Everything that happens to a process
// (commands, exits, timers, probe answers) is a message with the generation
// that it is about.
package supervisor
