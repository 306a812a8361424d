// Package job runs jobs: work that is written down first and done afterwards,
// with retries, limits, timeouts and cancellation, on one node or on many that
// share a database.
//
// Step decides; it is pure. The Engine acts: one goroutine per node claims what is
// due, starts handlers and writes down how they ended. Every change of a job is one
// transaction with the events that tell of it, guarded by the job's epoch, a number
// that each claim raises: whoever ran an earlier attempt is refused, and the refusal
// is an event of its own. The row of a job is also its place in the queue, so there
// is no second record that could contradict it.
//
// A running job is held by its node's lease. A node renews the lease while it lives;
// when one is lost, the others give its jobs back to their queues. A handler may
// therefore run more than once, and Run.Finish lets its effect and its end be one
// transaction, which happens once.
package job
