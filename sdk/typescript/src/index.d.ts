/**
 * Programs under Perdure speak to their supervisor.
 *
 * ```js
 * import { connect } from 'perdure-worker'
 *
 * const worker = connect()
 * worker.ready()
 * worker.progress(40, 'pass 1')
 * worker.emit('file.done', { file: 'a.mp4' })
 * await worker.close()
 * ```
 *
 * Without supervision each call does nothing and succeeds. Times are in milliseconds.
 */

/** How a worker speaks to Perdure. By default everything comes from the environment. */
export interface Options {
  /** Path of Perdure's Unix socket. Default: `PERDURE_WORKER_SOCKET`. */
  socket?: string
  /** Where Perdure listens on TCP, `127.0.0.1:PORT`; used when there is no socket. Default: `PERDURE_WORKER_ADDRESS`. */
  address?: string
  /** What TCP may need. Default: `PERDURE_WORKER_TOKEN`. */
  token?: string
  /** Bounds of the outbox: what is accepted and not yet durable. Beyond them `emit` throws an `OutboxFullError`. Default: 10,000. */
  maxMessages?: number
  /** Default: 8 MiB. */
  maxBytes?: number
  /**
   * Leaves heartbeats to the program's own calls of `heartbeat`, so that a program whose work hangs while its event
   * loop turns is noticed. By itself the worker sends them from the event loop, as often as Perdure asks for: a
   * blocked loop is noticed without this. Default: false.
   */
  manualHeartbeat?: boolean
  /** How often `measure()` is sent by itself. Default: 0, never. */
  statsInterval?: number
  /** What Perdure may ask of the program, by name; `onCommand` adds more. */
  commands?: Record<string, CommandFunction>
  /**
   * Takes what somebody has sent to the program that is no command. One call at a time, a promise that it returns is
   * awaited; of those that wait, more than 256 are dropped and counted.
   */
  onMessage?: (data: any) => unknown
  /** Is told of each message that Perdure has refused for good and that no `emitAcked` waits for. As `onMessage`. */
  onRefused?: (error: RefusedError) => unknown
  /** Bounds `close` when it is given no signal. Default: 5 s, or three quarters of `grace` if that is less. */
  closeTimeout?: number
  /** Is told of lost connections and of what is refused, such as `console`. Default: nobody. */
  logger?: { debug(message: string, detail?: unknown): void; warn(message: string, detail?: unknown): void }
}

/**
 * Does what a command asks and returns the data of its reply, or a promise of it. The message of what it throws goes to
 * whoever has sent the command. Commands run at the same time, at most 64 of them.
 */
export type CommandFunction = (data: any, about: CommandContext) => unknown

export interface CommandContext {
  /** The command's id. */
  id: string
  /** Aborted when nobody waits for the reply any more, and when the worker is closed. */
  signal: AbortSignal
}

/** Ends a wait. */
export interface Wait {
  /** The wait ends, and its promise is rejected with the signal's reason, when the signal is aborted. */
  signal?: AbortSignal
}

/** Who the program is to Perdure. */
export interface Identity {
  /** Stable over restarts of the program. */
  id: string
  /** The name of the process. */
  name: string
  /** Which incarnation this is, from 1; 0 without supervision. */
  generation: number
}

/** What became of the messages of a worker. */
export interface Counters {
  /** Messages in the outbox, and how long they are. */
  waiting: number
  waitingBytes: number
  /** Messages that are durable or were refused, of which `refused` were refused. */
  settled: number
  refused: number
  /** How often the outbox had no room for a message. */
  full: number
  /**
   * Messages that were given up: statuses, progresses, stats and heartbeats that a later one replaced before they could
   * be sent, and callbacks that were too many.
   */
  dropped: number
  /** How often Perdure has welcomed the worker. */
  connections: number
}

/** What this process uses: CPU times in microseconds and in percent of one core since the measurement before, bytes, seconds. */
export interface Usage {
  cpu: { user: number; system: number; percent: number }
  memory: { rss: number; heapUsed: number; heapTotal: number; external: number }
  uptime: number
}

export type Level = 'debug' | 'info' | 'warn' | 'error'

/** The events of a program: their names and their data. */
export type Events = Record<string, any>

/** Makes a worker and lets it connect: `new Worker(options).start()`. */
export function connect<E extends Events = Events, M = Record<string, any>>(options?: Options): Worker<E, M>

/**
 * The program's end of the connection to Perdure. `E` says which events the program emits, `M` what its metadata are:
 *
 * ```ts
 * const worker = connect<{ 'file.done': { file: string } }, { files: string[] }>()
 * ```
 *
 * A worker with commands or `onMessage` keeps the program alive until it is closed or a hook of `onShutdown` has run;
 * others do not. A program that ends by having nothing left to do closes its worker before.
 */
export class Worker<E extends Events = Events, M = Record<string, any>> {
  /** Throws a TypeError or a RangeError that names the option. */
  constructor(options?: Options)

  /** Lets the worker connect, again and again until it is closed. This does not wait for the connection. */
  start(): this

  /** Whether the program runs under Perdure; not whether the connection stands. */
  readonly supervised: boolean
  readonly identity: Identity
  /** The time between the signal that asks the program to stop and SIGKILL; 0 while that is not known. */
  readonly grace: number
  readonly counters: Counters

  /**
   * The metadata of the process, `{}` when there is none. Waits for the connection when the environment does not hold
   * them (they are long or secret).
   */
  metadata(wait?: Wait): Promise<M>

  /**
   * Puts an event into the outbox and returns: this never waits. `data` is what JSON.stringify makes of it; the default
   * is `{}`. Throws an OutboxFullError when there is no room, a ClosedError after `close`, a TypeError or a RangeError
   * for what JSON or Perdure cannot take.
   */
  emit<K extends keyof E & string>(event: K, data?: E[K]): void
  /**
   * Emits an event and waits until it is durable; waits for room in the outbox as well. Rejected with a RefusedError
   * when Perdure does not take it. When the wait is ended while the event is in the outbox, it is still delivered.
   */
  emitAcked<K extends keyof E & string>(event: K, data?: E[K], wait?: Wait): Promise<void>

  /**
   * Says that the program is ready to do its work. It goes through the outbox, as `reloading`, `stopping`, `unhealthy`
   * and `log` do: they throw what `emit` throws.
   */
  ready(): void
  /** Says that the program reads its configuration again; `ready` ends that. */
  reloading(): void
  /** Says that the program has begun to end. */
  stopping(): void
  /** Says that the program knows that it is broken: it is treated as one whose heartbeats have failed. */
  unhealthy(message?: string): void
  /** Sends a structured line of log. */
  log(level: Level, message: string, data?: object): void

  /** Says in one line what the program does. Only the latest counts; 4096 bytes of it are kept. */
  status(text: string): void
  /** Says how far the program is, in percent from 0 to 100, and what it is at. Only the latest counts. */
  progress(percent: number, message?: string, data?: object): void
  /** Says that the program needs this many milliseconds more, from now, to become ready or to stop. */
  extend(ms: number): void
  /** Sends what the program uses: what `measure` returns, or an object of the program's own. */
  stats(stats?: object): void
  /** What this process uses. Perdure measures the process with all its children by itself. */
  measure(): Usage
  /**
   * Says that the program gets on with its work. It may be called as often as one likes: one within a quarter of the
   * interval that Perdure asks for is not sent.
   */
  heartbeat(): void

  /**
   * Sets up what the program does when Perdure gives it the command. After the worker has connected the first one makes
   * it connect anew.
   */
  onCommand(name: string, f: CommandFunction): void
  /**
   * From now on, SIGTERM and SIGINT ask the program to end instead of ending it: Perdure is told that the program is
   * stopping, the signal that this returns is aborted, and `f` is called. The program ends by itself; a second signal
   * ends it at once. It works without supervision too.
   */
  onShutdown(f?: () => unknown): AbortSignal

  /** Waits until Perdure has welcomed the worker and the connection stands. */
  connected(wait?: Wait): Promise<void>
  /** Waits until everything that was accepted before is settled, and the latest status and progress are sent. */
  flush(wait?: Wait): Promise<void>
  /**
   * Ends in order: aborts the commands that run and waits for them and for the outbox, then tells Perdure that the
   * worker hangs up on purpose. It is bounded by the signal, or by `closeTimeout`; what is not settled by then is lost,
   * and the ClosedError says how much. A later call waits for the first.
   */
  close(wait?: Wait): Promise<void>
}

/** What went wrong between the program and Perdure. */
export class WorkerError extends Error {}
/** The outbox has no room: nothing was taken, and the refusal is counted. */
export class OutboxFullError extends WorkerError {}
/** The worker was closed before. */
export class ClosedError extends WorkerError {}
/** Perdure refused a message for good, durably. It is not sent again. */
export class RefusedError extends WorkerError {
  /** That of the protocol, such as `invalid`. */
  readonly code: string
  /** For people. */
  readonly reason: string
  /** The message. */
  readonly sent: Record<string, any>
}
