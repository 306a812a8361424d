/**
 * The protocol without input and output: what is kept, what goes out next, and
 * what becomes of what comes in. docs/reference/wire.md of Perdure specifies it.
 * Nothing here waits.
 */

export const VERSION = '0.1.0'
export const MAX_LINE = 1 << 20
const MAX_DEPTH = 200
const MAX_STATUS = 4096
const BATCH = 64 << 10
/** The most that the field "id" adds to a line. */
const ID_FIELD = ',"id":9007199254740991'.length

/**
 * The messages of which only the latest counts, in the order in which they go
 * out. They do not wait behind the outbox.
 */
const SLOTS = /** @type {const} */ (['heartbeat', 'extend', 'status', 'progress', 'stats'])

/** @typedef {(typeof SLOTS)[number]} Slot */
/** @typedef {Record<string, any>} Json */
/** @typedef {{ type: string } & Json} Sent */
/** @typedef {{ resolve: () => void, reject: (e: Error) => void }} Waiter */
/** @typedef {{ id: number, line: string, size: number, waiter?: Waiter, error?: RefusedError }} Item */
/** @typedef {{ kind: 'command', id: string, name: string, data: any, timeout: number }} Command */
/** @typedef {{ kind: 'message', data: any }} Message */
/** @typedef {{ kind: 'refused', error: RefusedError, told: boolean }} Refused */
/** @typedef {Command | Message | Refused} News */

export class WorkerError extends Error {
  /** @param {string} message */
  constructor(message) {
    super(message)
    this.name = new.target.name
  }
}

export class OutboxFullError extends WorkerError {}

export class ClosedError extends WorkerError {}

export class RefusedError extends WorkerError {
  /** @param {string} code @param {string} reason @param {Json} sent */
  constructor(code, reason, sent) {
    super(`refused by Perdure: ${reason} (${code})`)
    this.code = code
    this.reason = reason
    this.sent = sent
  }
}

/**
 * The line of a message, without its end. What Perdure would not take throws here.
 * @param {Sent} message
 * @returns {{ text: string, size: number }} size counts the end
 */
export function encode(message) {
  const text = JSON.stringify(message)
  const size = Buffer.byteLength(text) + 1
  if (size - 1 + ID_FIELD > MAX_LINE) {
    throw new RangeError(`cannot send ${message.type}: the message has ${size - 1} bytes, ${MAX_LINE} at most are taken`)
  }
  if (depth(text) > MAX_DEPTH) {
    throw new RangeError(`cannot send ${message.type}: the data is nested deeper than ${MAX_DEPTH}`)
  }
  return { text, size }
}

/** How deep the objects and arrays of a JSON text are nested. @param {string} text */
export function depth(text) {
  let deepest = 0
  let now = 0
  let inText = false
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === 0x5c) i++ // a backslash stands in texts only
    else if (c === 0x22) inText = !inText
    else if (inText) continue
    else if (c === 0x7b || c === 0x5b) deepest = Math.max(deepest, ++now)
    else if (c === 0x7d || c === 0x5d) now--
  }
  return deepest
}

/** Cuts a status to what Perdure keeps of it. @param {string} text */
export function clip(text) {
  if (Buffer.byteLength(text) <= MAX_STATUS) return text
  // A character that the cut has split is left out.
  return new TextDecoder().decode(Buffer.from(text).subarray(0, MAX_STATUS), { stream: true })
}

/** The state of one worker over all its connections. */
export class Core {
  /** @param {number} maxMessages @param {number} maxBytes */
  constructor(maxMessages, maxBytes) {
    this.instance = crypto.randomUUID()
    this.maxMessages = maxMessages
    this.maxBytes = maxBytes
    this.counters = { waiting: 0, waitingBytes: 0, settled: 0, refused: 0, full: 0, dropped: 0, connections: 0 }
    /** Nothing new is taken but replies. */
    this.closing = false
    /** The highest id given. */
    this.last = 0
    /** @type {Item[]} what is not settled, in the order of the ids */
    this.items = []
    /** items.slice(0, sent) went out on this connection. */
    this.sent = 0
    /** @type {Map<Slot, { line: string, pending: boolean }>} */
    this.slots = new Map()
    /** On this connection. */
    this.welcomed = false
    /** @type {Json | undefined} the last one, kept over a loss */
    this.welcome = undefined
    /** The error that hello was answered with. */
    this.refusal = ''
    /** hello has said that commands are taken. */
    this.told = false
    this.beatAt = -Infinity
    /** @type {Buffer[]} a line without its end */
    this.rest = []
    this.restSize = 0
  }

  // What the program says.

  /**
   * Puts a message into the outbox.
   * @param {Sent} message @param {Waiter} [waiter]
   */
  add(message, waiter) {
    const { text, size } = encode(message)
    const c = this.counters
    if (size + ID_FIELD > this.maxBytes) {
      throw new RangeError(`cannot take a message of ${size} bytes into an outbox of ${this.maxBytes}`)
    }
    if (this.closing && message.type !== 'reply') throw new ClosedError('the worker is closed')
    if (c.waiting >= this.maxMessages || c.waitingBytes + size + ID_FIELD > this.maxBytes) {
      c.full++
      throw new OutboxFullError('the outbox is full')
    }
    const field = `,"id":${++this.last}}\n`
    const item = { id: this.last, line: text.slice(0, -1) + field, size: size - 2 + field.length, waiter }
    this.items.push(item)
    c.waiting++
    c.waitingBytes += item.size
  }

  /** Takes a message of which only the latest counts. @param {Slot} slot @param {Sent} message */
  fill(slot, message) {
    const line = encode(message).text + '\n'
    if (this.closing) throw new ClosedError('the worker is closed')
    if (this.slots.get(slot)?.pending) this.counters.dropped++
    this.slots.set(slot, { line, pending: true })
  }

  /** Takes a heartbeat. @param {number} now monotonic milliseconds */
  beat(now) {
    this.beatAt = now
    if (this.slots.get('heartbeat')?.pending) this.counters.dropped++
    this.slots.set('heartbeat', { line: `{"type":"heartbeat","timestamp":${Date.now()}}\n`, pending: true })
  }

  /** Takes a heartbeat of the program's, unless one has just been sent. @param {number} now */
  beatByHand(now) {
    const wish = this.welcome?.heartbeat?.intervalMs
    if (!wish || now - this.beatAt >= wish / 4) this.beat(now)
  }

  // What goes out.

  /** Begins a connection. @param {string} token @param {boolean} commands */
  hello(token, commands) {
    this.rest = []
    this.restSize = 0
    this.refusal = ''
    this.told = commands
    /** @type {Sent} */
    const message = { type: 'hello', version: 1, instance: this.instance, sdk: 'typescript/' + VERSION }
    if (token) message.token = token
    if (commands) message.capabilities = ['commands']
    return encode(message).text + '\n'
  }

  /** What is to be written now, in about one batch; empty when there is nothing. */
  next() {
    if (!this.welcomed) return ''
    let out = ''
    for (const slot of SLOTS) {
      const s = this.slots.get(slot)
      if (s?.pending) {
        s.pending = false
        out += s.line
      }
    }
    while (this.sent < this.items.length && out.length < BATCH) out += this.items[this.sent++].line
    return out
  }

  /**
   * Whether everything up to an id is settled, and the latest of what the program
   * says of itself is sent.
   */
  flushed(last = Infinity) {
    if (['extend', 'status', 'progress'].some((s) => this.slots.get(/** @type {Slot} */ (s))?.pending)) return false
    return this.items.length === 0 || this.items[0].id > last
  }

  // What comes in.

  /** Takes bytes of Perdure, and returns what the program is to be told. @param {Buffer} data */
  feed(data) {
    /** @type {News[]} */
    const news = []
    let from = 0
    for (let end = data.indexOf(10); end >= 0; end = data.indexOf(10, from)) {
      this.rest.push(data.subarray(from, end))
      // Decoded only when the line is whole: no character is cut in two.
      const line = Buffer.concat(this.rest).toString()
      this.rest = []
      this.restSize = 0
      from = end + 1
      this.#line(line, news)
    }
    if (from < data.length) {
      this.rest.push(data.subarray(from))
      this.restSize += data.length - from
    }
    if (this.restSize > 2 * MAX_LINE) {
      // No Perdure sends such a line.
      this.rest = []
      this.restSize = 0
    }
    return news
  }

  /** @param {string} line @param {News[]} news */
  #line(line, news) {
    let m
    try {
      m = JSON.parse(line)
    } catch {
      return
    }
    if (m === null || typeof m !== 'object') return
    if (m.type === 'ack' && Number.isInteger(m.id)) this.#settle(m.id)
    else if (m.type === 'welcome' && !this.welcomed) this.#welcome(m, news)
    else if (m.type === 'error') this.#refused(m, news)
    else if (m.type === 'message') news.push({ kind: 'message', data: m.data })
    else if (m.type === 'command' && typeof m.id === 'string') {
      news.push({ kind: 'command', id: m.id, name: String(m.command), data: m.data, timeout: Number(m.timeoutMs) || 0 })
    }
  }

  /** @param {Json} m @param {News[]} news */
  #welcome(m, news) {
    const limit = m.maxLine > 0 ? m.maxLine : MAX_LINE
    this.welcomed = true
    this.welcome = m
    this.counters.connections++
    this.#settle(Number.isInteger(m.last) ? m.last : 0)
    this.sent = 0 // all of it is sent again
    const long = this.items.filter((i) => i.size - 1 > limit)
    if (long.length > 0) this.items = this.items.filter((i) => i.size - 1 <= limit)
    for (const item of long) {
      // Perdure would skip it, and never settle it.
      this.#mark(item, 'too_long', `the message has ${item.size - 1} bytes, and this Perdure takes ${limit}`, news)
      this.#done(item)
    }
    for (const slot of /** @type {const} */ (['status', 'progress'])) {
      // A Perdure that was killed may not have kept the latest one.
      const s = this.slots.get(slot)
      if (s) s.pending = true
    }
  }

  /** @param {number} last */
  #settle(last) {
    let n = 0
    while (n < this.items.length && this.items[n].id <= last) n++
    this.sent = Math.max(0, this.sent - n)
    for (const item of this.items.splice(0, n)) this.#done(item)
  }

  /** @param {Item} item */
  #done(item) {
    this.counters.waiting--
    this.counters.waitingBytes -= item.size
    this.counters.settled++
    if (item.error) item.waiter?.reject(item.error)
    else item.waiter?.resolve()
  }

  /** @param {Json} m @param {News[]} news */
  #refused(m, news) {
    if (m.id === undefined) {
      if (!this.welcomed) this.refusal = String(m.code)
      return
    }
    const item = this.items.find((i) => i.id === m.id)
    if (item) this.#mark(item, String(m.code), String(m.message ?? ''), news)
  }

  /** @param {Item} item @param {string} code @param {string} reason @param {News[]} news */
  #mark(item, code, reason, news) {
    this.counters.refused++
    item.error = new RefusedError(code, reason, JSON.parse(item.line))
    news.push({ kind: 'refused', error: item.error, told: item.waiter !== undefined })
  }

  /** Lets everybody go who waits for a message; the messages stay counted. */
  abandon() {
    for (const item of this.items) {
      item.waiter?.reject(new ClosedError('the worker is closed'))
      item.waiter = undefined
    }
  }
}

/** The waits between two tries to connect, in milliseconds. */
export class Backoff {
  #first
  #most
  #denied
  #pause

  constructor(first = 100, most = 2000, denied = 30_000) {
    this.#first = this.#pause = first
    this.#most = most
    this.#denied = denied
  }

  /** The wait after a connection that was, or was not, welcomed. @param {boolean} welcomed @param {string} refusal */
  next(welcomed, refusal) {
    if (welcomed) this.#pause = this.#first
    const pause = this.#pause
    this.#pause = Math.min(2 * pause, this.#most)
    if (refusal === 'denied' || refusal === 'version') return this.#denied
    return pause * (0.5 + Math.random())
  }
}
