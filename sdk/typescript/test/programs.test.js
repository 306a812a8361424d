// Whole programs, which end.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { test as plain } from 'node:test'

import { PATIENCE, Perdure } from './script.js'

const test = (name, f) => plain(name, { timeout: 2 * PATIENCE }, f)
const INDEX = new URL('../src/index.js', import.meta.url).href

/** Starts a program that has a worker w. */
function program(t, p, text, options = '{}') {
  const source = `import { connect } from ${JSON.stringify(INDEX)}\nconst w = connect(${options})\n${text}`
  const env = { ...process.env, PERDURE_WORKER_SOCKET: p?.path ?? '' }
  const child = spawn(process.execPath, ['--input-type=module', '-e', source], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  t.after(() => child.kill('SIGKILL'))
  child.stderr.setEncoding('utf8').on('data', (text) => (child.errors = (child.errors ?? '') + text))
  child.over = once(child, 'close')
  return child
}

test('SIGTERM and SIGINT ask the program to end', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT']) {
    const p = await Perdure.open(t)
    const child = program(t, p, `
      const stop = w.onShutdown(async () => w.emit('hook', stop.aborted))
      w.ready()`, '{ commands: { a: () => 1 } }') // the commands keep it alive until the hooks have run
    await p.greet()
    assert.equal((await p.message()).type, 'ready')
    child.kill(signal)
    assert.equal((await p.message()).type, 'stopping')
    const m = await p.message()
    assert.deepEqual([m.event, m.data], ['hook', true])
    p.write({ type: 'ack', id: 3 })
    await p.farewell()
    assert.deepEqual(await child.over, [0, null], child.errors)
  }
})

test('a second signal ends it at once', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, `setInterval(() => {}, 1000)\nw.onShutdown()\nw.ready()`)
  await p.greet()
  await p.message()
  child.kill('SIGTERM')
  assert.equal((await p.message()).type, 'stopping')
  child.kill('SIGTERM')
  assert.deepEqual(await child.over, [null, 'SIGTERM'])
})

test('what was emitted last is delivered, though nobody closes the worker', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, `w.emit('last words')`)
  await p.greet()
  assert.equal((await p.message()).event, 'last words')
  p.write({ type: 'ack', id: 1 })
  await p.farewell()
  assert.deepEqual(await child.over, [0, null], child.errors)
})

test('a program whose Perdure stays away ends, and says what is lost', async (t) => {
  const child = program(t, { path: '/nowhere/w.sock' }, `w.emit('a')`, '{ closeTimeout: 1 }')
  assert.deepEqual(await child.over, [0, null])
  assert.match(child.errors, /cannot deliver 1 messages/)
})

test('a wait keeps the program alive', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, `await w.emitAcked('a')\nawait w.close()`)
  await p.greet()
  await p.message()
  p.write({ type: 'ack', id: 1 })
  await p.farewell()
  assert.deepEqual(await child.over, [0, null], child.errors)
})

test('a worker alone does not keep the program alive', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, `await w.connected()`)
  await p.greet()
  await p.farewell()
  assert.deepEqual(await child.over, [0, null], child.errors)
})

test('a blocked event loop sends no heartbeats', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, `await w.connected(); setTimeout(() => { process.stdout.write('blocked'); for (;;); }, 20)`)
  let said = ''
  child.stdout.setEncoding('utf8').on('data', (text) => (said += text))
  await p.greet(0, { heartbeat: { intervalMs: 1, timeoutMs: 60_000 } })
  while (said !== 'blocked') await once(child.stdout, 'data')
  // All that it will ever have sent is on its way: this end only has to read it.
  for (let before = -1; before < p.lines.length; ) {
    before = p.lines.length
    for (let n = 0; n < 20; n++) await new Promise(setImmediate)
  }
  const sent = p.lines.length
  await new Promise((resolve) => setTimeout(resolve, 50))
  assert.equal(p.lines.length, sent)
  child.kill('SIGKILL')
})

test('what a callback throws is the program\'s to see', async (t) => {
  const p = await Perdure.open(t)
  const child = program(t, p, '', `{ onMessage: () => { throw new Error('mine') } }`)
  await p.greet()
  p.write({ type: 'message', data: 1 })
  const [code] = await child.over
  assert.equal(code, 1)
  assert.match(child.errors, /mine/)
})
