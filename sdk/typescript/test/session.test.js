// Against Perdure's real end of the protocol.
import assert from 'node:assert/strict'
import fs from 'node:fs'
import path from 'node:path'
import { test as plain } from 'node:test'

import { RefusedError } from '../src/index.js'
import { begin, folder, PATIENCE, patience, Session, until } from './script.js'

const test = (name, f) => plain(name, { timeout: 2 * PATIENCE }, f)

/** Each way to connect. */
async function* ways(t, ...args) {
  const socket = path.join(folder(t), 'w.sock')
  yield [await Session.open(t, '-socket', socket, ...args), { socket }]
  const s = await Session.open(t, '-tcp', '-token', 'secret', ...args)
  yield [s, { address: `127.0.0.1:${s.port}`, token: 'secret' }]
}

test('a worker says all that it can say', async (t) => {
  for await (const [s, options] of ways(t, '-heartbeat', '10')) {
    const got = []
    const w = begin(t, { ...options, commands: { double: (n) => 2 * n }, onMessage: (data) => got.push(data) })
    assert.deepEqual(await w.metadata(), { file: 'a.mp4' })
    assert.equal(w.grace, 10_000)
    const reports = { heartbeat: [] }
    const next = async () => {
      const m = await s.next()
      if (m.report) (reports[m.report] ??= []).push(m.data)
      return m
    }
    const wanted = async (type, n = 1) => {
      while ((reports[type]?.length ?? 0) < n) await next()
      return reports[type][n - 1]
    }
    assert.match((await wanted('process.worker_connected')).sdk, /^typescript\/\d/)
    await wanted('heartbeat', 2)
    w.ready()
    await wanted('process.worker_ready')
    w.status('3 of 7')
    assert.equal((await wanted('process.status')).status, '3 of 7')
    w.progress(42.5, 'pass 1', { fps: 25 })
    assert.deepEqual(({ percent: 0, ...(await wanted('process.progress')) }).percent, 42.5)
    w.log('warn', 'slow', { ms: 12 })
    assert.deepEqual((await wanted('process.log')).data, { ms: 12 })
    w.stats({ queue: 3 })
    for (;;) {
      s.write({ look: true })
      let m
      do m = await next()
      while (m.conns === undefined)
      if (m.stats) {
        assert.deepEqual([m.conns, m.stats], [1, { queue: 3 }])
        break
      }
    }
    await w.emitAcked('größe', { name: '🎬' }).then(assert.fail, (e) => assert(e instanceof RefusedError && e.code === 'invalid'))
    assert.equal((await wanted('process.event_invalid')).reason, 'name')
    await w.emitAcked('file.done', { name: '🎬' }, { signal: patience() })
    assert.deepEqual((await wanted('process.event')).data, { name: '🎬' })
    s.write({ command: 'double', data: 21 })
    let m
    do m = await next()
    while (m.reply === undefined)
    assert.equal(m.reply, 42)
    s.write({ send: { hi: 1 } })
    await until(() => got.length === 1)
    assert.deepEqual(got, [{ hi: 1 }])
    await w.close({ signal: patience() })
    assert.equal((await wanted('process.worker_disconnected')).reason, 'disconnecting')
    await s.kill()
  }
})

test('nothing is acked that is not durable', async (t) => {
  const socket = path.join(folder(t), 'w.sock')
  const s = await Session.open(t, '-socket', socket)
  const w = begin(t, { socket })
  await s.report('process.worker_connected')
  s.write({ hold: true })
  s.write({ look: true })
  assert.equal((await s.next()).conns, 1) // so the hold is on
  let acked = false
  const emitted = w.emitAcked('a').then(() => (acked = true))
  await new Promise((resolve) => setTimeout(resolve, 20))
  assert.equal(acked, false)
  s.write({ hold: false })
  await emitted
  await s.report('process.event')
  await w.close({ signal: patience() })
})

test('P24, D4: each event is kept exactly once, though Perdure is killed again and again', async (t) => {
  const dir = folder(t)
  const socket = path.join(dir, 'w.sock')
  const file = path.join(dir, 'durable')
  const events = 5000
  const w = begin(t, { socket, maxMessages: 300 })
  let emitted = 0
  const all = (async () => {
    while (emitted < events) {
      try {
        w.emit('n', emitted)
        emitted++
      } catch {
        await w.flush({ signal: patience() })
      }
    }
    await w.flush({ signal: patience() })
  })()
  let kills = 0
  for (let done = false; !done; kills++) {
    const s = await Session.open(t, '-socket', socket, '-file', file)
    const begun = w.counters.settled
    // Killed once it has settled some, at an arbitrary place.
    await until(() => w.counters.settled > begun + 400 || w.counters.settled === events)
    done = w.counters.settled === events
    await s.kill()
  }
  await all
  assert(kills > 5, `${kills}`)
  const kept = fs.readFileSync(file, 'utf8').trim().split('\n').flatMap((l) => JSON.parse(l).reports).filter((r) => r.report === 'process.event')
  assert.deepEqual(kept.map((r) => r.data.data), Array.from({ length: events }, (_, n) => n))
})
