// Checked by tsc, never run.
import { ClosedError, connect, type Counters, RefusedError, Worker, WorkerError } from '../src/index.js'

const worker = connect<{ 'file.done': { file: string }; begun: {} }, { files: string[] }>({
  commands: { resize: async (data, { signal }) => ({ width: data.width, gone: signal.aborted }) },
  onRefused: (e) => e.sent.event,
  logger: console,
})
worker.emit('file.done', { file: 'a' })
worker.emit('begun')
// @ts-expect-error there is no such event
worker.emit('file.dome', { file: 'a' })
// @ts-expect-error its data is another
worker.emit('file.done', { name: 'a' })
// @ts-expect-error there is no such level
worker.log('fatal', 'x')
// @ts-expect-error there is no such option
new Worker({ sockets: 'x' })

export async function all(): Promise<Counters> {
  const { files } = await worker.metadata({ signal: AbortSignal.timeout(1000) })
  worker.progress(1, files[0], { n: 1 })
  const stop: AbortSignal = worker.onShutdown(async () => {})
  if (stop.aborted) await worker.close()
  try {
    await new Worker().emitAcked('anything', [1, 'two', null])
  } catch (e) {
    if (e instanceof RefusedError) worker.status(e.code + e.reason)
    const closed: WorkerError = e as ClosedError
    worker.unhealthy(closed.message)
  }
  return worker.counters
}
