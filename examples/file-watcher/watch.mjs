// Watches a folder and emits an event for each file that appears, changes or goes.
// Node 20 or later; without Perdure it writes to standard output alone.
import fs from 'node:fs'
import path from 'node:path'

import { connect } from '../../sdk/typescript/src/index.js'

const known = new Map() // name -> what it looked like
const worker = connect({
  commands: { list: () => Object.fromEntries([...known].map(([name, s]) => [name, s.size])) },
})
const stop = worker.onShutdown()
const { folder = process.argv[2] ?? 'inbox' } = await worker.metadata()
fs.mkdirSync(folder, { recursive: true })

/** Compares the folder with what is known: a notification only says that something is to be looked at. */
function look() {
  const seen = new Set()
  for (const file of fs.readdirSync(folder)) {
    const s = fs.statSync(path.join(folder, file), { throwIfNoEntry: false })
    if (!s?.isFile()) continue
    seen.add(file)
    const before = known.get(file)
    known.set(file, s)
    if (before?.mtimeMs !== s.mtimeMs || before?.size !== s.size) tell('file.changed', { file, bytes: s.size })
  }
  for (const file of known.keys()) {
    if (!seen.has(file)) {
      known.delete(file)
      tell('file.removed', { file })
    }
  }
  worker.status(`${known.size} files in ${folder}`)
}

function tell(event, data) {
  console.log(event, data.file)
  worker.emit(event, data)
}

const watcher = fs.watch(folder, look)
look()
worker.ready()
stop.addEventListener('abort', () => watcher.close()) // nothing is left to do then: the program ends
