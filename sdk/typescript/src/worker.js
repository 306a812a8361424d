/** The program's end of the connection to Perdure. */
import { dial, find } from './address.js'
import { Calls, thrown } from './calls.js'
import { Backoff, ClosedError, clip, Core, encode, OutboxFullError } from './core.js'
import { Meter } from './stats.js'

const LEVELS = ['debug', 'info', 'warn', 'error']
const CLOSE_TIMEOUT = 5000
/** The longest time that a timer of JavaScript can take; more would fire at once. */
const LONGEST = 2 ** 31 - 1

/** The times of the protocol in milliseconds; tests shorten them. */
export const PROTOCOL = { first: 100, most: 2000, denied: 30_000, welcome: 10_000, bye: 2000 }
/** The key of options for tests: other times, other environment. */
export const INTERNAL = Symbol('perdure-worker')

/** @typedef {import('./core.js').News} News */
/** @typedef {import('./core.js').Sent} Sent */
/** @typedef {{ socket: import('node:net').Socket, before: number, bye: boolean, again: boolean, error?: Error, timers: NodeJS.Timeout[] }} Link */
/** @typedef {{ signal?: AbortSignal }} Wait */

/** @param {import('./index.d.ts').Options} [options] */
export function connect(options) {
  return new Worker(options).start()
}

export class Worker {
  #address
  #core
  #options
  #times
  #backoff
  #calls
  #metadata
  #identity
  #meter = new Meter()
  /** @type {Link | undefined} */
  #link
  /** @type {NodeJS.Timeout | undefined} the next try to connect */
  #retry
  #started = false
  #leaving = false
  #killed = false
  #ended = false
  #nudged = false
  /** @type {Promise<void> | undefined} */
  #closed
  /** @type {Set<() => void>} who waits for a change */
  #waiting = new Set()
  #waits = 0
  /** @type {NodeJS.Timeout | undefined} keeps the program alive */
  #alive
  #released = false
  #stop = new AbortController()
  /** @type {(() => unknown)[] | undefined} undefined: signals are not listened to */
  #hooks

  /** @param {import('./index.d.ts').Options} [options] */
  constructor(options = {}) {
    const { times, env } = /** @type {any} */ (options)[INTERNAL] ?? {}
    /** @type {Record<string, string | undefined>} */
    const from = env ?? process.env
    const { maxMessages = 10_000, maxBytes = 8 << 20, statsInterval = 0, closeTimeout = 0 } = options
    if (!(maxMessages > 0) || !(maxBytes > 0) || !(statsInterval >= 0) || !(closeTimeout >= 0)) {
      throw new RangeError('maxMessages and maxBytes must be above 0, statsInterval and closeTimeout not below')
    }
    this.#options = { ...options, statsInterval, closeTimeout }
    this.#address = find(options, from)
    this.#times = { ...PROTOCOL, ...times }
    this.#backoff = new Backoff(this.#times.first, this.#times.most, this.#times.denied)
    this.#core = new Core(maxMessages, maxBytes)
    this.#calls = new Calls((message) => this.#reply(message), () => this.#core.counters.dropped++)
    this.#metadata = object(from.PERDURE_METADATA)
    this.#identity = { id: from.PERDURE_ID ?? '', name: from.PERDURE_NAME ?? '', generation: Number.parseInt(from.PERDURE_GENERATION ?? '', 10) || 0 }
    for (const [name, f] of Object.entries(options.commands ?? {})) this.#calls.set(name, f)
  }

  start() {
    if (this.#address && !this.#started && !this.#core.closing) {
      this.#started = true
      process.on('beforeExit', this.#beforeExit)
      this.#keepAlive()
      // Not at once: commands that are set up in this turn are in the hello.
      queueMicrotask(() => this.#connect())
    }
    return this
  }

  get supervised() {
    return this.#address !== undefined
  }

  get identity() {
    return { ...this.#identity }
  }

  get grace() {
    return Number(this.#core.welcome?.stop?.graceMs) || 0
  }

  get counters() {
    return { ...this.#core.counters }
  }

  /** @param {Wait} [wait] */
  async metadata({ signal } = {}) {
    if (this.#metadata === undefined && this.#address) await this.#until(() => this.#core.welcome !== undefined, signal)
    return structuredClone(this.#metadata ?? this.#core.welcome?.metadata ?? {})
  }

  // What the program says.

  /** @param {string} event @param {any} [data] */
  emit(event, data = {}) {
    this.#put({ type: 'event', event, data: value(data) })
  }

  /** @param {string} event @param {any} [data] @param {Wait} [wait] */
  async emitAcked(event, data = {}, { signal } = {}) {
    if (!this.#address) return
    for (;;) {
      signal?.throwIfAborted()
      const changed = this.#change()
      try {
        const settled = resolvers()
        this.#put({ type: 'event', event, data: value(data) }, settled)
        return await this.#wait(settled.promise, signal)
      } catch (e) {
        if (!(e instanceof OutboxFullError)) throw e
      }
      await this.#wait(changed, signal)
    }
  }

  ready() {
    this.#put({ type: 'ready' })
  }

  reloading() {
    this.#put({ type: 'reloading' })
  }

  stopping() {
    this.#put({ type: 'stopping' })
  }

  unhealthy(message = '') {
    this.#put({ type: 'unhealthy', message })
  }

  /** @param {string} level @param {string} message @param {object} [data] */
  log(level, message, data) {
    if (!LEVELS.includes(level)) throw new TypeError(`cannot log: the level must be one of ${LEVELS.join(', ')}`)
    this.#put({ type: 'log', level, message: String(message), ...(data && { data: members(data, 'log') }) })
  }

  /** @param {string} text */
  status(text) {
    this.#say('status', { type: 'status', status: clip(String(text)) })
  }

  /** @param {number} percent @param {string} [message] @param {object} [data] */
  progress(percent, message, data) {
    if (!Number.isFinite(percent)) throw new TypeError(`cannot send progress: the percentage must be a number, not ${percent}`)
    this.#say('progress', { type: 'progress', percent, ...(message && { message }), ...(data && { data: members(data, 'progress') }) })
  }

  /** @param {number} ms */
  extend(ms) {
    if (!(ms >= 1) || !Number.isFinite(ms)) throw new RangeError('cannot extend by less than a millisecond')
    this.#say('extend', { type: 'extend', timeoutMs: Math.trunc(ms) })
  }

  /** @param {object} [stats] */
  stats(stats) {
    this.#say('stats', { type: 'stats', stats: stats === undefined ? this.measure() : members(stats, 'stats') })
  }

  measure() {
    return this.#meter.measure()
  }

  heartbeat() {
    if (!this.#address || this.#ended) return
    this.#core.beatByHand(performance.now())
    this.#nudge()
  }

  // What the program is told.

  /** @param {string} name @param {import('./index.d.ts').CommandFunction} f */
  onCommand(name, f) {
    this.#calls.set(name, f)
    this.#keepAlive()
    this.#nudge()
  }

  /** @param {() => unknown} [f] */
  onShutdown(f) {
    if (!this.#hooks) {
      this.#hooks = []
      process.on('SIGTERM', this.#signalled).on('SIGINT', this.#signalled)
    }
    if (f) this.#hooks.push(f)
    return this.#stop.signal
  }

  #signalled = () => {
    this.#deafen() // the next signal has the effect that it has in any program
    try {
      this.stopping()
    } catch (e) {
      this.#options.logger?.warn('Cannot say that the program is stopping', e)
    }
    this.#stop.abort(new ClosedError('the program is asked to stop'))
    const hooks = (this.#hooks ?? []).map(async (f) => f())
    for (const h of hooks) h.catch(thrown)
    void Promise.allSettled(hooks).then(() => {
      this.#released = true
      this.#keepAlive()
    })
  }

  #deafen() {
    process.off('SIGTERM', this.#signalled).off('SIGINT', this.#signalled)
  }

  // What waits.

  /** @param {Wait} [wait] */
  async connected({ signal } = {}) {
    await this.#until(() => this.#core.welcomed, signal)
  }

  /** @param {Wait} [wait] */
  async flush({ signal } = {}) {
    const { last } = this.#core
    await this.#until(() => this.#core.flushed(last), signal)
  }

  /** @param {() => boolean} true_ @param {AbortSignal} [signal] */
  async #until(true_, signal) {
    while (this.#address && !true_()) {
      if (this.#ended) throw new ClosedError('the worker is closed')
      await this.#wait(this.#change(), signal)
    }
  }

  /** @returns {Promise<void>} resolves with the next change */
  #change() {
    return new Promise((resolve) => {
      this.#waiting.add(resolve)
    })
  }

  #changed() {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }

  /**
   * Waits for a promise or for the end of a signal, and keeps the program alive meanwhile.
   * @template T @param {Promise<T>} promise @param {AbortSignal} [signal] @returns {Promise<T>}
   */
  async #wait(promise, signal) {
    signal?.throwIfAborted()
    this.#waits++
    this.#keepAlive()
    let abort = () => {}
    try {
      if (!signal) return await promise
      const aborted = new Promise((_, reject) => {
        abort = () => reject(signal.reason)
        signal.addEventListener('abort', abort)
      })
      return await Promise.race([promise, /** @type {Promise<never>} */ (aborted)])
    } finally {
      signal?.removeEventListener('abort', abort)
      this.#waits--
      this.#keepAlive()
    }
  }

  /** @param {Wait} [wait] */
  close({ signal } = {}) {
    this.#closed ??= this.#close(signal)
    return this.#closed
  }

  /** @param {AbortSignal} [signal] */
  async #close(signal) {
    const core = this.#core
    core.closing = true
    this.#keepAlive()
    let timer
    if (!signal) {
      const late = new AbortController()
      const grace = this.grace * 0.75
      const limit = this.#options.closeTimeout || (grace > 0 ? Math.min(CLOSE_TIMEOUT, grace) : CLOSE_TIMEOUT)
      timer = setTimeout(() => late.abort(), Math.min(limit, LONGEST))
      signal = late.signal
    }
    // An ack that comes meanwhile does not end the connection: the commands
    // that are cancelled now still reply.
    await this.#wait(this.#calls.end(), signal).catch(() => {})
    this.#leaving = true
    this.#nudge()
    if (!this.#started) this.#killed = true
    this.#endWait()
    while (!this.#ended && !signal.aborted) await this.#wait(this.#change(), signal).catch(() => {})
    clearTimeout(timer)
    this.#killed = true
    this.#link?.socket.destroy()
    this.#endWait()
    while (!this.#ended) await this.#change()
    this.#calls.finish()
    process.off('beforeExit', this.#beforeExit)
    this.#deafen()
    core.abandon()
    this.#changed()
    this.#keepAlive()
    if (core.counters.waiting > 0) {
      throw new ClosedError(`cannot deliver ${core.counters.waiting} messages: Perdure has not settled them in time`)
    }
  }

  /** The program has nothing left to do: what waits is still delivered. */
  #beforeExit = () => {
    this.close().catch((e) => process.emitWarning(e.message, 'PerdureWarning'))
  }

  /** Keeps the program alive, or lets it end when it has nothing else to do. */
  #keepAlive() {
    const listens = this.#started && !this.#released && !this.#core.closing && (this.#calls.any || this.#options.onMessage)
    const busy = this.#core.closing && this.#started && !this.#ended
    if (this.#waits > 0 || listens || busy) this.#alive ??= setInterval(() => {}, LONGEST)
    else {
      clearInterval(this.#alive)
      this.#alive = undefined
    }
  }

  /** @param {Sent} message @param {import('./core.js').Waiter} [waiter] */
  #put(message, waiter) {
    if (!this.#address) return
    message.timestamp = Date.now()
    this.#core.add(message, waiter)
    this.#nudge()
  }

  /** @param {import('./core.js').Slot} slot @param {Sent} message */
  #say(slot, message) {
    if (!this.#address) return
    message.timestamp = Date.now()
    this.#core.fill(slot, message)
    this.#nudge()
  }

  /** @param {Sent} message */
  #reply(message) {
    try {
      this.#put(message)
    } catch (e) {
      if (!(e instanceof OutboxFullError) && message.error === undefined) { // the data cannot be sent: that can be told
        this.#reply({ type: 'reply', to: message.to, error: `cannot send the reply: ${/** @type {Error} */ (e).message}` })
        return
      }
      // Whoever waits for it learns that its outcome is unknown.
      this.#options.logger?.warn('Cannot reply to a command', e)
    }
  }

  // The connection.

  /** Writes what there is to write, once for all that is said in this turn. */
  #nudge() {
    if (this.#nudged || !this.#started) return
    this.#nudged = true
    queueMicrotask(() => {
      this.#nudged = false
      this.#pump()
    })
  }

  #over() {
    return this.#killed || (this.#leaving && this.#core.flushed())
  }

  /** Ends a wait for the next try that makes no sense any more. */
  #endWait() {
    if (this.#link || !this.#over()) return
    clearTimeout(this.#retry)
    this.#ended = true
    this.#changed()
  }

  #connect() {
    this.#retry = undefined
    if (this.#ended) return
    const before = this.#core.counters.connections
    let socket
    try {
      socket = dial(/** @type {import('./address.js').Address} */ (this.#address))
    } catch (e) {
      this.#lost(before, false, /** @type {Error} */ (e))
      return
    }
    /** @type {Link} */
    const link = { socket, before, bye: false, again: false, timers: [] }
    this.#link = link
    // Only #alive keeps the program alive.
    socket.unref()
    this.#patience(link, this.#times.welcome)
    socket.on('connect', () => {
      const token = this.#address && 'token' in this.#address ? this.#address.token : ''
      socket.write(this.#core.hello(token, this.#calls.any))
    })
    socket.on('data', (data) => this.#receive(link, data))
    socket.on('drain', () => this.#pump())
    socket.on('error', (e) => {
      link.error = e
    })
    socket.on('close', () => {
      for (const t of link.timers) clearTimeout(t)
      this.#link = undefined
      this.#lost(before, link.again, link.error)
    })
  }

  /** Hangs up when the time is over. @param {Link} link @param {number} ms */
  #patience(link, ms) {
    link.timers.push(setTimeout(() => link.socket.destroy(), ms).unref())
  }

  /** @param {Link} link @param {number} ms @param {() => void} f */
  #every(link, ms, f) {
    f()
    link.timers.push(setInterval(f, Math.min(ms, LONGEST)).unref())
  }

  /** @param {number} before @param {boolean} again @param {Error} [error] */
  #lost(before, again, error) {
    const core = this.#core
    const stood = core.counters.connections > before
    core.welcomed = false
    if (this.#over()) {
      this.#ended = true
      this.#changed()
      return
    }
    this.#options.logger?.debug(stood ? 'Lost the connection to Perdure' : 'Cannot connect to Perdure', error)
    const pause = this.#backoff.next(stood, core.refusal)
    this.#retry = setTimeout(() => this.#connect(), again ? 0 : pause).unref()
    this.#changed()
  }

  /** @param {Link} link @param {Buffer} data */
  #receive(link, data) {
    const core = this.#core
    const stood = core.welcomed
    const news = core.feed(data)
    if (core.welcomed && !stood) this.#welcomed(link)
    for (const n of news) this.#tell(n)
    this.#changed()
    this.#pump()
  }

  /** @param {Link} link */
  #welcomed(link) {
    for (const t of link.timers.splice(0)) clearTimeout(t)
    const interval = this.#core.welcome?.heartbeat?.intervalMs
    if (interval > 0 && !this.#options.manualHeartbeat) {
      this.#every(link, interval, () => {
        this.#core.beat(performance.now())
        this.#nudge()
      })
    }
    if (this.#options.statsInterval > 0) {
      this.#every(link, this.#options.statsInterval, () => {
        if (!this.#core.closing) this.stats()
      })
    }
  }

  #pump() {
    const link = this.#link
    const core = this.#core
    if (!link || !core.welcomed || link.bye || link.socket.destroyed) return
    if (this.#calls.any && !core.told) {
      // Commands were set up after hello: it is said anew, on a new connection.
      link.bye = link.again = true
      link.socket.destroySoon()
      return
    }
    while (!link.socket.writableNeedDrain) {
      const batch = core.next()
      if (batch) {
        link.socket.write(batch)
        continue
      }
      this.#changed()
      if (this.#leaving && core.flushed()) {
        link.bye = true
        this.#patience(link, this.#times.bye)
        link.socket.end(encode({ type: 'disconnecting', timestamp: Date.now() }).text + '\n')
      }
      return
    }
  }

  /** @param {News} n */
  #tell(n) {
    const { onMessage, onRefused, logger } = this.#options
    if (n.kind === 'command') this.#calls.obey(n)
    else if (n.kind === 'message') {
      if (onMessage) this.#calls.later(() => onMessage(n.data))
    } else {
      logger?.warn(n.error.message, n.error.sent)
      if (onRefused && !n.told) this.#calls.later(() => onRefused(n.error))
    }
  }
}

/** @returns {any} */
function resolvers() {
  /** @type {any} */
  const r = {}
  r.promise = new Promise((resolve, reject) => Object.assign(r, { resolve, reject }))
  return r
}

/** What JSON.stringify would leave out without a word. @param {any} data */
function value(data) {
  if (typeof data === 'function' || typeof data === 'symbol') throw new TypeError(`cannot send a ${typeof data}`)
  return data
}

/** @param {any} data @param {string} what */
function members(data, what) {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) throw new TypeError(`cannot send ${what}: the data must be an object`)
  return data
}

/** Reads a JSON object; what is none is nothing. @param {string | undefined} text */
function object(text) {
  try {
    const v = text && JSON.parse(text)
    return v && typeof v === 'object' && !Array.isArray(v) ? v : undefined
  } catch {
    return undefined
  }
}
