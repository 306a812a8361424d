/**
 * Programs under Perdure speak to their supervisor: they say that they are alive,
 * ready and how far they are, emit events that are never lost, and take commands.
 * index.d.ts documents it; docs/reference/wire.md of Perdure is the protocol.
 */
export { ClosedError, OutboxFullError, RefusedError, WorkerError } from './core.js'
export { connect, Worker } from './worker.js'
