import fs from 'node:fs'
import path from 'node:path'
import test from 'node:test'

import { PATIENCE, Perdure, Player, ROOT } from './script.js'

const dir = path.join(ROOT, 'internal', 'wire', 'testdata')
for (const file of fs.readdirSync(dir).filter((f) => f.startsWith('client-'))) {
  for (const tcp of [false, true]) {
    test(`${file} over ${tcp ? 'TCP' : 'a Unix socket'}`, { timeout: 2 * PATIENCE }, async (t) => {
      await new Player(t, await Perdure.open(t, { tcp })).play(fs.readFileSync(path.join(dir, file), 'utf8'))
    })
  }
}
