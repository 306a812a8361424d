// A scripted Perdure on a real socket, the real one, and the transcripts of the protocol.
import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'

import { Worker } from '../src/index.js'
import { INTERNAL } from '../src/worker.js'

export const ROOT = fileURLToPath(new URL('../../..', import.meta.url))
// Ends a test that waits for what does not come; nothing depends on how long it is.
export const PATIENCE = 300_000
const QUICK = { first: 1, most: 5, denied: PATIENCE, welcome: PATIENCE, bye: PATIENCE }

export const patience = () => AbortSignal.timeout(PATIENCE)

/** What is to be undone, with t as a test of node:test. */
export function folder(t) {
  const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'p-'))
  t.after(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** A worker that tries again at once, as tests that lose connections want it, and ends with the test. */
export function make(t, options, times = {}, env = {}) {
  const w = new Worker({ ...options, [INTERNAL]: { times: { ...QUICK, ...times }, env } })
  t.after(() => w.close({ signal: AbortSignal.abort() }).catch(() => {}))
  return w
}

export const begin = (t, options, times, env) => make(t, options, times, env).start()

/** Waits until something holds, which a change of the worker makes true. */
export async function until(f) {
  const end = Date.now() + PATIENCE
  while (!f()) {
    assert(Date.now() < end, 'it does not come true')
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** One scripted server; the current connection is the one accepted last. */
export class Perdure {
  static async open(t, { socket, tcp = false } = {}) {
    const p = new Perdure()
    p.path = tcp ? undefined : (socket ?? path.join(folder(t), 'w.sock'))
    p.waiting = []
    p.listener = net.createServer({ allowHalfOpen: true, pauseOnConnect: true })
    p.listener.on('connection', (conn) => {
      conn.on('error', () => {})
      p.waiting.push(conn)
      p.wake?.()
    })
    p.listener.listen(tcp ? { host: '127.0.0.1', port: 0 } : p.path)
    await once(p.listener, 'listening')
    t.after(() => p.close())
    return p
  }

  get options() {
    return this.path ? { socket: this.path } : { address: `127.0.0.1:${this.listener.address().port}` }
  }

  close() {
    this.hangUp()
    for (const conn of this.waiting) conn.destroy()
    this.listener.close()
  }

  async accept() {
    this.hangUp()
    while (this.waiting.length === 0) await new Promise((resolve) => (this.wake = resolve))
    const conn = this.waiting.shift()
    this.conn = conn
    this.lines = []
    this.ended = false
    let rest = ''
    conn.setEncoding('utf8')
    conn.on('data', (text) => {
      const lines = (rest + text).split('\n')
      rest = lines.pop()
      this.lines.push(...lines)
      this.more?.()
    })
    const ended = () => {
      if (this.conn === conn) this.ended = true
      this.rest = rest
      this.more?.()
    }
    conn.on('end', ended).on('close', ended)
    conn.resume()
  }

  hangUp() {
    this.conn?.destroy()
    this.conn = undefined
  }

  reset() {
    if (this.path) this.hangUp()
    else {
      this.conn.resetAndDestroy()
      this.conn = undefined
    }
  }

  async #some() {
    while (this.lines.length === 0 && !this.ended) await new Promise((resolve) => (this.more = resolve))
  }

  async message() {
    await this.#some()
    assert(this.lines.length > 0, 'the connection has ended')
    return JSON.parse(this.lines.shift())
  }

  write(...messages) {
    this.conn.write(messages.map((m) => JSON.stringify(m) + '\n').join(''))
  }

  /** Takes hello of the next connection, and welcomes it. */
  async greet(last = 0, more = {}) {
    await this.accept()
    const hello = await this.message()
    assert.equal(hello.type, 'hello')
    this.write({ type: 'welcome', version: 1, last, maxLine: 1 << 20, capabilities: [], ...more })
    return hello
  }

  /** Expects the end of what the worker sends. */
  async end() {
    await this.#some()
    assert.deepEqual([this.lines, this.rest], [[], ''])
  }

  async farewell() {
    assert.equal((await this.message()).type, 'disconnecting')
    await this.end()
    this.hangUp()
  }

  /** Closes the worker while a script goes on. */
  async closing(w, script = () => this.farewell()) {
    await Promise.all([w.close({ signal: patience() }), script()])
  }
}

let built
/** Perdure's real end of the protocol, sdk/sessiontest. */
export class Session {
  static async open(t, ...args) {
    const s = new Session()
    if (!built) {
      built = process.env.PERDURE_SESSIONTEST
      if (!built) {
        built = path.join(ROOT, 'bin', 'sessiontest')
        execFileSync('go', ['build', '-o', built, './sdk/sessiontest'], { cwd: ROOT, stdio: 'inherit' })
      }
    }
    s.child = spawn(built, args, { stdio: ['pipe', 'pipe', 'inherit'] })
    s.child.stdin.on('error', () => {})
    t.after(() => s.kill())
    s.output = readline.createInterface({ input: s.child.stdout })[Symbol.asyncIterator]()
    s.port = (await s.next()).port
    return s
  }

  async next() {
    const { value, done } = await this.output.next()
    assert(!done, 'sessiontest has ended')
    return JSON.parse(value)
  }

  /** The data of the next report, which must be of a type. */
  async report(type) {
    const got = await this.next()
    assert.equal(got.report, type, JSON.stringify(got))
    return got.data
  }

  write(command) {
    this.child.stdin.write(JSON.stringify(command) + '\n')
  }

  async kill() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}

/** Plays one transcript of internal/wire/testdata against a worker. */
export class Player {
  constructor(t, perdure) {
    this.p = perdure
    this.w = make(t, perdure.options)
    this.bound = new Map()
  }

  async play(text) {
    for (const [i, line] of text.split('\n').entries()) {
      if (line === '' || line.startsWith('#')) continue
      const [, mark, rest = ''] = /^(\S+)(?: (.*))?$/.exec(line)
      try {
        await this.step(mark, rest)
      } catch (e) {
        throw new Error(`line ${i + 1}, ${line}: ${e.message}`, { cause: e })
      }
    }
    await this.closed
  }

  async step(mark, rest) {
    switch (mark) {
      case '@':
        return this.call(...cut(rest))
      case '=':
        return this.p.accept()
      case '>':
        return this.match('', JSON.parse(rest), await this.p.message())
      case '>fin':
        return this.p.end()
      case '<': {
        const { '...': more, ...m } = this.fill(JSON.parse(rest))
        const required = { processId: 'proc_1', name: 'w', generation: 1, maxLine: 1 << 20, capabilities: [] }
        return this.p.write(more ? { ...required, ...m } : m)
      }
      case '<raw':
        return this.p.conn.write(Buffer.from(JSON.parse(rest), 'latin1'))
      case '<fin':
        return this.p.hangUp()
      case '*':
      case '!':
        return undefined
      default:
        throw new Error('a mark that clients do not know')
    }
  }

  async call(verb, rest) {
    const [first, more] = cut(rest)
    switch (verb) {
      case 'command':
        return this.w.onCommand(first, () => JSON.parse(more))
      case 'fail':
        return this.w.onCommand(first, () => {
          throw new Error(JSON.parse(more))
        })
      case 'emit':
        return this.w.emit(first, JSON.parse(more))
      case 'log':
        return this.w.log(first, ...values(more))
      case 'settled':
        // Ids are given without gaps: what is settled up to one is as many.
        return until(() => this.w.counters.settled >= Number(rest))
      case 'lost':
        return this.p.reset()
      case 'close':
        this.closed = this.w.close({ signal: patience() })
        return this.closed.catch(() => {}) && undefined
      case 'start':
      case 'heartbeat':
      case 'stats':
      case 'ready':
      case 'reloading':
      case 'stopping':
      case 'status':
      case 'progress':
      case 'unhealthy':
      case 'extend':
        return void this.w[verb](...values(rest))
      default:
        throw new Error('a call that clients do not know')
    }
  }

  match(at, want, got) {
    if (want === '<number>') assert.equal(typeof got, 'number', at)
    else if (want === '<string>') assert.equal(typeof got, 'string', at)
    else if (typeof want === 'string' && want.startsWith('<string:')) {
      if (!this.bound.has(want)) this.bound.set(want, got)
      assert.equal(got, this.bound.get(want), at)
    } else if (Array.isArray(want)) {
      assert.equal(got.length, want.length, at)
      want.forEach((v, i) => this.match(`${at}[${i}]`, v, got[i]))
    } else if (want && typeof want === 'object') {
      const { '...': more, ...fields } = want
      for (const [k, v] of Object.entries(fields)) {
        assert(Object.hasOwn(got, k), `${at}.${k} is missing`)
        this.match(`${at}.${k}`, v, got[k])
      }
      if (!more) assert.deepEqual(Object.keys(got).sort(), Object.keys(fields).sort(), at)
    } else assert.equal(got, want, at)
  }

  fill(v) {
    if (Array.isArray(v)) return v.map((x) => this.fill(x))
    if (v && typeof v === 'object') return Object.fromEntries(Object.entries(v).map(([k, x]) => [k, this.fill(x)]))
    if (v === '<number>') return 1754000000000
    if (v === '<string>') return 'some-text'
    if (typeof v === 'string' && v.startsWith('<string:')) {
      if (!this.bound.has(v)) this.bound.set(v, 'text-' + v.slice(8, -1))
      return this.bound.get(v)
    }
    return v
  }
}

/** Cuts at the first blank. */
function cut(text) {
  const i = text.indexOf(' ')
  return i < 0 ? [text, ''] : [text.slice(0, i), text.slice(i + 1)]
}

/** The JSON values of a line, one after the other. */
function values(text) {
  const out = []
  while (text) {
    let end = text.length
    for (;;) { // the longest beginning that is JSON
      try {
        out.push(JSON.parse(text.slice(0, end)))
        break
      } catch {
        end = text.lastIndexOf(' ', end - 1)
        assert(end > 0, `no JSON: ${text}`)
      }
    }
    text = text.slice(end).trimStart()
  }
  return out
}
