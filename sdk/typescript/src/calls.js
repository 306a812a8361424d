/** Runs what belongs to the program, so that none of it holds up the connection. */
import { ClosedError, WorkerError } from './core.js'

const MAX_COMMANDS = 64
const MAX_CALLBACKS = 256
const LONGEST = 2 ** 31 - 1

/** @typedef {import('./core.js').Sent} Sent */
/** @typedef {import('./index.d.ts').CommandFunction} CommandFunction */

export class Calls {
  #reply
  #dropped
  /** @type {Map<string, CommandFunction>} */
  #commands = new Map()
  /** @type {Set<AbortController>} */
  #running = new Set()
  /** @type {(() => void) | undefined} */
  #idle
  #ending = false
  /** @type {(() => unknown)[]} */
  #queue = []
  #calling = false
  #finished = false

  /** @param {(reply: Sent) => void} reply @param {() => void} dropped is called for each callback that was too many */
  constructor(reply, dropped) {
    this.#reply = reply
    this.#dropped = dropped
  }

  /** @param {string} name @param {CommandFunction} f */
  set(name, f) {
    if (typeof f !== 'function') throw new TypeError(`cannot set up the command ${JSON.stringify(name)}: it needs a function`)
    this.#commands.set(name, f)
  }

  get any() {
    return this.#commands.size > 0
  }

  /** @param {import('./core.js').Command} c */
  obey(c) {
    const f = this.#commands.get(c.name)
    /** @param {string} error */
    const refuse = (error) => this.#reply({ type: 'reply', to: c.id, error })
    if (!f) refuse(`unknown command ${JSON.stringify(c.name)}`)
    else if (this.#ending) refuse('the program is about to end')
    else if (this.#running.size >= MAX_COMMANDS) refuse(`the program is busy with ${MAX_COMMANDS} commands`)
    else void this.#run(c, f)
  }

  /** @param {import('./core.js').Command} c @param {CommandFunction} f */
  async #run(c, f) {
    const cancel = new AbortController()
    this.#running.add(cancel)
    const late = () => cancel.abort(new WorkerError('the command has taken too long'))
    const timer = c.timeout > 0 ? setTimeout(late, Math.min(c.timeout, LONGEST)).unref() : undefined
    try {
      const data = await f(c.data, { id: c.id, signal: cancel.signal })
      if (typeof data === 'function' || typeof data === 'symbol') throw new TypeError(`cannot send a ${typeof data}`)
      this.#reply({ type: 'reply', to: c.id, ...(data !== undefined && { data }) })
    } catch (e) {
      this.#reply({ type: 'reply', to: c.id, error: (e instanceof Error && e.message) || String(e) })
    }
    clearTimeout(timer)
    this.#running.delete(cancel)
    if (this.#running.size === 0) this.#idle?.()
  }

  /** Cancels the commands; resolves when none runs any more. @returns {Promise<void>} */
  end() {
    this.#ending = true
    for (const c of this.#running) c.abort(new ClosedError('the program is about to end'))
    return new Promise((resolve) => {
      if (this.#running.size === 0) resolve()
      else this.#idle = resolve
    })
  }

  /** Calls f behind the callbacks that wait, one after the other; when too many do it is dropped. @param {() => unknown} f */
  later(f) {
    if (this.#queue.length >= MAX_CALLBACKS) {
      this.#dropped()
      return
    }
    this.#queue.push(f)
    if (!this.#calling) void this.#call()
  }

  async #call() {
    this.#calling = true
    for (let f = this.#queue.shift(); f && !this.#finished; f = this.#queue.shift()) {
      try {
        await f()
      } catch (e) {
        thrown(e)
      }
    }
    this.#calling = false
  }

  /** Callbacks that wait are not called any more. */
  finish() {
    this.#finished = true
    this.#queue = []
  }
}

/** Throws what a function of the program has thrown where the program sees it. @param {unknown} e */
export function thrown(e) {
  queueMicrotask(() => {
    throw e
  })
}
