// What is written is what is declared. Checked by tsc, with the types of Node, never run.
import type { connect, Worker } from '../src/index.js'
import * as js from '../src/worker.js'

export const same: typeof Worker = js.Worker
export const connects: typeof connect = js.connect
