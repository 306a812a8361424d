import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { test as plain } from 'node:test'

import { ClosedError, OutboxFullError, RefusedError, Worker } from '../src/index.js'
import { Backoff, clip, depth } from '../src/core.js'
import { begin, folder, make, PATIENCE, patience, Perdure, until } from './script.js'

const test = (name, f) => plain(name, { timeout: 2 * PATIENCE }, f)

test('without supervision everything succeeds', async (t) => {
  const w = begin(t, {})
  w.emit('a', 1)
  await w.emitAcked('a')
  for (const call of ['ready', 'reloading', 'stopping', 'unhealthy', 'stats', 'heartbeat']) w[call]()
  w.status('x')
  w.progress(1)
  w.extend(1)
  w.log('info', 'x')
  w.onCommand('x', () => {})
  await w.flush()
  await w.connected()
  assert.deepEqual(await w.metadata(), {})
  assert.deepEqual([w.supervised, w.counters.waiting, w.identity.generation], [false, 0, 0])
  assert(w.measure().cpu.user > 0)
  await w.close()
  await w.close()
})

test('the environment', async (t) => {
  const env = { PERDURE_ID: 'i', PERDURE_NAME: 'n', PERDURE_GENERATION: '3', PERDURE_METADATA: '{"file":"a"}' }
  const p = await Perdure.open(t, { tcp: true })
  const w = begin(t, {}, {}, { ...env, PERDURE_WORKER_ADDRESS: p.options.address, PERDURE_WORKER_TOKEN: 'secret' })
  assert.equal((await p.greet()).token, 'secret')
  assert.deepEqual(w.identity, { id: 'i', name: 'n', generation: 3 })
  assert.deepEqual(await w.metadata(), { file: 'a' })
  await p.closing(w)
  assert.throws(() => make(t, { address: 'nonsense' }), /127.0.0.1:7070/)
  assert.throws(() => make(t, { maxMessages: 0 }), /maxMessages/)
  assert.throws(() => make(t, { commands: { a: 1 } }), /"a"/)
})

test('P25, D4: Perdure comes later and stays away, and no number of failures ends the tries', async (t) => {
  const socket = path.join(folder(t), 'w.sock')
  const w = begin(t, { socket })
  w.emit('early')
  for (const last of [0, 1]) {
    const p = await Perdure.open(t, { socket })
    await p.greet(last)
    if (last === 0) {
      const m = await p.message()
      assert.deepEqual([m.event, m.id, m.data], ['early', 1, {}])
      p.write({ type: 'ack', id: 1 })
      await w.flush({ signal: patience() })
      p.close()
      continue
    }
    await w.connected({ signal: patience() })
    await p.closing(w)
  }
  assert.deepEqual([w.counters.connections, w.counters.settled], [2, 1])
})

test('D4, P15: heartbeats begin at once on each connection', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, p.options)
  for (let n = 0; n < 3; n++) {
    await p.greet(0, { heartbeat: { intervalMs: 3_600_000, timeoutMs: 7_200_000 } })
    assert.equal((await p.message()).type, 'heartbeat')
    if (n < 2) p.reset()
  }
  await p.closing(w)
})

test('P24: a Perdure that dies at random moments gets each event once, in order', async (t) => {
  const events = 3000
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, maxMessages: 500 })
  const emitted = (async () => {
    for (let n = 0; n < events; ) {
      try {
        w.emit('n', n)
        n++
      } catch (e) {
        assert(e instanceof OutboxFullError)
        await w.flush({ signal: patience() })
      }
    }
    await w.flush({ signal: patience() })
  })()
  let last = 0
  let losses = 0
  let seed = 1
  while (last < events) {
    await p.greet(last)
    while (last < events) {
      const m = await p.message()
      if (m.id > last) {
        assert.deepEqual([m.id, m.data], [last + 1, last])
        last = m.id
      }
      p.write({ type: 'ack', id: last })
      seed = (seed * 1103515245 + 12345) % 2 ** 31
      if (seed % 211 === 0) {
        losses++
        p.reset()
        break
      }
    }
  }
  await emitted
  assert(losses > 3)
  assert.deepEqual([w.counters.settled, w.counters.waiting], [events, 0])
  await p.closing(w)
})

test('P22: a character that comes in two pieces stays whole', async (t) => {
  const p = await Perdure.open(t)
  let got
  const w = begin(t, { ...p.options, onMessage: (data) => (got = data) })
  await p.greet()
  await w.connected()
  const bytes = Buffer.from('{"type":"message","data":"größe 🎬"}\n')
  for (let i = 0; i < bytes.length; i++) {
    await new Promise((resolve) => p.conn.write(bytes.subarray(i, i + 1), resolve))
    await new Promise(setImmediate)
  }
  await until(() => got !== undefined)
  assert.equal(got, 'größe 🎬')
  await p.closing(w)
})

test('a path that is too long for a socket address', { skip: process.platform !== 'linux' }, async (t) => {
  const deep = path.join(folder(t), 'd'.repeat(120), 'e'.repeat(120))
  fs.mkdirSync(deep, { recursive: true })
  const fd = fs.openSync(deep, 'r')
  t.after(() => fs.closeSync(fd))
  const p = await Perdure.open(t, { socket: `/proc/self/fd/${fd}/w.sock` })
  const w = begin(t, { socket: deep + '/w.sock' })
  await p.greet()
  await p.closing(w)
  const lost = begin(t, { socket: '/' + 'nowhere/'.repeat(20) + 'w.sock' })
  lost.emit('a')
  await assert.rejects(lost.close({ signal: AbortSignal.timeout(1) }), /1 messages/)
})

test('a Unix socket gets no token', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, token: 'secret' })
  assert.equal((await p.greet()).token, undefined)
  await p.closing(w)
})

test('who is denied waits longer', async (t) => {
  for (const code of ['denied', 'version']) {
    const p = await Perdure.open(t)
    const w = begin(t, p.options, { first: PATIENCE * 10, most: PATIENCE * 10, denied: 1 }) // only this wait is short
    await p.accept()
    await p.message()
    p.write({ type: 'error', code, message: 'go away' })
    p.conn.end()
    await p.end()
    await p.greet()
    await p.closing(w)
  }
})

test('the waits between two tries', () => {
  const b = new Backoff()
  for (const want of [100, 200, 400, 800, 1600, 2000, 2000]) {
    const got = b.next(false, '')
    assert(want * 0.5 <= got && got <= want * 1.5, `${got}`)
  }
  assert(b.next(true, '') <= 150)
  assert.equal(b.next(false, 'denied'), 30_000)
})

test('no welcome is tried again', async (t) => {
  const p = await Perdure.open(t)
  begin(t, p.options, { welcome: 1 })
  for (let n = 0; n < 3; n++) {
    await p.accept()
    await until(() => p.ended)
  }
})

test('metadata of the welcome', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, p.options)
  await assert.rejects(w.metadata({ signal: AbortSignal.abort() }), { name: 'AbortError' })
  await p.greet(0, { metadata: { file: 'b' }, stop: { graceMs: 1500 } })
  assert.deepEqual(await w.metadata(), { file: 'b' })
  assert.equal(w.grace, 1500)
  await p.closing(w)
})

test('status and progress outlive a Perdure', async (t) => {
  const p = await Perdure.open(t)
  const w = make(t, p.options)
  w.status('old')
  w.status('new')
  w.progress(50, 'half')
  w.start()
  for (let n = 0; n < 2; n++) {
    await p.greet()
    assert.equal((await p.message()).status, 'new')
    assert.equal((await p.message()).percent, 50)
    p.reset()
  }
  assert.equal(w.counters.dropped, 1)
})

test('the outbox is bounded', async (t) => {
  const socket = path.join(folder(t), 'w.sock')
  const w = begin(t, { socket, maxMessages: 2, maxBytes: 1000 })
  assert.throws(() => w.emit('a', 'x'.repeat(2000)), /1000/)
  w.emit('a', 1)
  w.emit('a', 2)
  assert.throws(() => w.emit('a', 3), OutboxFullError)
  await assert.rejects(w.emitAcked('a', 3, { signal: AbortSignal.timeout(1) }), { name: 'TimeoutError' })
  assert.deepEqual([w.counters.waiting, w.counters.full > 1], [2, true])
  const acked = w.emitAcked('a', 3, { signal: patience() }) // it waits for room
  const p = await Perdure.open(t, { socket })
  await p.greet()
  for (const n of [1, 2, 3]) {
    const m = await p.message()
    assert.deepEqual([m.id, m.data], [n, n])
    p.write({ type: 'ack', id: n })
  }
  await acked
  await p.closing(w)
  assert.throws(() => w.emit('a'), ClosedError)
  assert.throws(() => w.status('a'), ClosedError)
  await assert.rejects(w.connected(), ClosedError)
})

test('bytes bound the outbox', (t) => {
  const w = make(t, { socket: '/nowhere/w.sock', maxBytes: 1000 })
  assert.throws(() => {
    for (let n = 0; n < 100; n++) w.emit('a', 'ö'.repeat(50))
  }, OutboxFullError)
  assert(w.counters.waiting > 3 && w.counters.waiting < 10)
  assert(w.counters.waitingBytes > 600 && w.counters.waitingBytes <= 1000)
})

test('what cannot be sent throws', (t) => {
  const w = make(t, { socket: '/nowhere/w.sock' })
  let deep = []
  for (let n = 0; n < 199; n++) deep = [deep]
  const loop = {}
  loop.loop = loop
  for (const call of [
    () => w.emit('a', 'x'.repeat(1 << 20)), () => w.emit('a', deep), () => w.emit('a', loop), () => w.emit('a', 1n), () => w.emit('a', () => {}),
    () => w.progress(NaN), () => w.progress('40'), () => w.extend(0), () => w.log('fatal', 'x'), () => w.log('info', 'x', [1]), () => w.stats(1),
  ]) {
    assert.throws(call, (e) => e instanceof TypeError || e instanceof RangeError, String(call))
  }
  w.emit('a', deep[0])
  w.emit('a', '['.repeat(500))
  assert.equal(w.counters.waiting, 2)
  assert.equal(depth(JSON.stringify(['["[{', { 'a\\': [1] }])), 3)
  assert.equal(clip('ö'.repeat(3000)), 'ö'.repeat(2048))
  assert.equal(clip('x' + 'ö'.repeat(3000)), 'x' + 'ö'.repeat(2047))
})

test('refusals', async (t) => {
  const refused = []
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, onRefused: (e) => refused.push(e) })
  await p.greet()
  const acked = w.emitAcked('a', 1)
  await p.message()
  p.write({ type: 'error', code: 'invalid', message: 'no', id: 1 }, { type: 'ack', id: 1 })
  await assert.rejects(acked, (e) => e instanceof RefusedError && e.code === 'invalid' && e.reason === 'no' && e.sent.event === 'a')
  w.emit('b')
  await p.message()
  p.write({ type: 'error', code: 'invalid', message: 'no', id: 2 }, { type: 'ack', id: 2 })
  await w.flush()
  w.emit('c', 'x'.repeat(500))
  await p.message()
  p.reset()
  await p.greet(2, { maxLine: 300 }) // Perdure would skip it, and never settle it
  await until(() => refused.length === 2)
  assert.deepEqual(refused.map((e) => [e.code, e.sent.event]), [['invalid', 'b'], ['too_long', 'c']])
  await p.closing(w)
  assert.deepEqual([w.counters.refused, w.counters.settled], [3, 3])
})

test('close is bounded', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, closeTimeout: 1 })
  const acked = w.emitAcked('a')
  acked.catch(() => {})
  await p.greet()
  await p.message() // and no ack
  await assert.rejects(w.close(), (e) => e instanceof ClosedError && /1 messages/.test(e.message))
  await assert.rejects(acked, ClosedError)
})

test('a Perdure that does not read', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, maxBytes: 4 << 20, closeTimeout: 1 })
  await p.greet()
  await w.connected()
  p.conn.pause()
  assert.throws(() => {
    for (;;) w.emit('a', 'x'.repeat(65536))
  }, OutboxFullError)
  await assert.rejects(w.close(), ClosedError)
})

test('heartbeats and stats by themselves', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, statsInterval: 1 })
  await p.greet(0, { heartbeat: { intervalMs: 1, timeoutMs: 60_000 } })
  const count = { heartbeat: 0, stats: 0 }
  while (Math.min(count.heartbeat, count.stats) < 3) {
    const m = await p.message()
    count[m.type]++
    if (m.type === 'stats') assert(m.stats.cpu.percent >= 0 && m.stats.memory.rss > 0)
  }
  await p.closing(w, async () => {
    while ((await p.message()).type !== 'disconnecting');
    p.hangUp()
  })
})

test('heartbeats by hand: none is sent by itself, and many calls send few', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, { ...p.options, manualHeartbeat: true })
  await p.greet(0, { heartbeat: { intervalMs: 3_600_000, timeoutMs: 7_200_000 } })
  await w.connected()
  w.emit('a')
  assert.equal((await p.message()).type, 'event')
  for (let n = 0; n < 100; n++) w.heartbeat()
  assert.equal((await p.message()).type, 'heartbeat')
  p.write({ type: 'ack', id: 1 })
  await p.closing(w)
})

test('commands', async (t) => {
  const p = await Perdure.open(t)
  const w = begin(t, p.options)
  assert.equal((await p.greet()).capabilities, undefined)
  await w.connected()
  w.onCommand('add', (data) => data[0] + data[1])
  await p.end() // it connects anew to say so
  assert.deepEqual((await p.greet()).capabilities, ['commands'])
  w.onCommand('half', async (n) => n / 2)
  w.onCommand('nothing', () => {})
  w.onCommand('big', () => 'x'.repeat(1 << 20))
  w.onCommand('odd', () => 1n)
  w.onCommand('function', () => () => {})
  for (const [i, [command, data, want]] of [['add', [1, 2], 3], ['half', 1, 0.5], ['nothing', null, undefined], ['add', null], ['big', {}], ['odd', {}], ['function', {}]].entries()) {
    p.write({ type: 'command', id: String(i), command, data, timeoutMs: 60_000 })
    const m = await p.message()
    assert.deepEqual([m.to, m.id, m.data], [String(i), i + 1, want])
    assert.equal(m.error === undefined, i < 3, m.error)
  }
  p.write({ type: 'ack', id: 7 })
  await p.closing(w)
})

test('too many commands, and one that takes too long', async (t) => {
  const p = await Perdure.open(t)
  const wait = (_, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
  const w = begin(t, { ...p.options, commands: { wait } })
  await p.greet()
  p.write(...Array.from({ length: 65 }, (_, n) => ({ type: 'command', id: String(n), command: 'wait', timeoutMs: n ? 3e9 : 1 })))
  const got = [await p.message(), await p.message()]
  assert.match(got.find((m) => m.to === '64').error, /busy/)
  assert.match(got.find((m) => m.to === '0').error, /too long/)
  // The ack of all that was sent comes while closing cancels the others: their replies still go out.
  await p.closing(w, async () => {
    p.write({ type: 'ack', id: 2 })
    for (let n = 0; n < 63; n++) assert.match((await p.message()).error, /about to end/)
    p.write({ type: 'ack', id: 65 })
    await p.farewell()
  })
})

test('an ack that comes while closing waits for a command does not end the connection', async (t) => {
  const p = await Perdure.open(t)
  let free
  const w = begin(t, { ...p.options, commands: { slow: () => new Promise((resolve) => (free = resolve)) } })
  await p.greet()
  w.emit('a')
  p.write({ type: 'command', id: 'c', command: 'slow', timeoutMs: 60_000 })
  assert.equal((await p.message()).event, 'a')
  await until(() => free !== undefined)
  await p.closing(w, async () => {
    p.write({ type: 'ack', id: 1 })
    await until(() => w.counters.settled === 1)
    p.write({ type: 'command', id: 'd', command: 'slow', timeoutMs: 60_000 })
    assert.match((await p.message()).error, /about to end/)
    free('done')
    assert.equal((await p.message()).data, 'done')
    p.write({ type: 'ack', id: 3 })
    await p.farewell()
  })
})

test('callbacks hold nothing up, come one after the other, and are bounded', async (t) => {
  const p = await Perdure.open(t)
  const got = []
  let free
  const w = begin(t, {
    ...p.options,
    onMessage: async (data) => {
      got.push(data)
      if (data === 0) await new Promise((resolve) => (free = resolve))
    },
  })
  await p.greet()
  p.write(...Array.from({ length: 400 }, (_, data) => ({ type: 'message', data })))
  const acked = w.emitAcked('a')
  await p.message()
  p.write({ type: 'ack', id: 1 })
  await acked
  assert.deepEqual([got, w.counters.dropped], [[0], 400 - 256 - 1])
  free()
  await until(() => got.length === 257)
  assert.deepEqual(got.slice(0, 3), [0, 1, 2])
  await p.closing(w)
})

test('what index.js exports is what index.d.ts says', async () => {
  const source = fs.readFileSync(new URL('../src/index.d.ts', import.meta.url), 'utf8')
  const declared = [...source.matchAll(/^export (?:class|function) (\w+)/gm)].map((m) => m[1])
  assert.deepEqual(Object.keys(await import('../src/index.js')).sort(), declared.sort())
  const [, body] = /^export class Worker[^{]*\{$(.*?)^\}$/ms.exec(source)
  const members = new Set([...body.matchAll(/^ {2}(?:readonly )?(\w+)[<(:]/gm)].map((m) => m[1]))
  assert.deepEqual(Object.getOwnPropertyNames(Worker.prototype).sort(), [...members].sort())
})
