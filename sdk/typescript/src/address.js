/** Where Perdure is, and how its socket is reached. */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'

/** sun_path has 108 bytes with the zero at its end (unix(7)). */
const MAX_PATH = 107
/** O_PATH (open(2)), which Node has no constant for: it needs no right to read the folder. */
const O_PATH = 0x200000

/** @typedef {{ path: string } | { host: string, port: number, token: string }} Address */

/**
 * The address that was given, or else that of the environment; undefined without supervision.
 * @param {import('./index.d.ts').Options} o
 * @param {Record<string, string | undefined>} env
 * @returns {Address | undefined}
 */
export function find(o, env) {
  let { socket, address, token } = o
  if (!socket && !address) {
    socket = env.PERDURE_WORKER_SOCKET
    address = env.PERDURE_WORKER_ADDRESS
    token ||= env.PERDURE_WORKER_TOKEN
  }
  if (socket) return { path: socket }
  if (!address) return undefined
  const [, host, port] = /^(.+):(\d+)$/.exec(address) ?? []
  if (!host) throw new TypeError(`cannot use "${address}" as the address of Perdure: write it like 127.0.0.1:7070`)
  return { host: host.replace(/^\[|\]$/g, ''), port: Number(port), token: token ?? '' }
}

/**
 * Begins to connect. A path that is too long for a socket address goes through a
 * descriptor of its folder, which is open until the outcome is known.
 * @param {Address} a
 */
export function dial(a) {
  if ('port' in a) return net.connect({ host: a.host, port: a.port, noDelay: true })
  if (Buffer.byteLength(a.path) <= MAX_PATH || process.platform !== 'linux') return net.connect(a.path)
  const fd = fs.openSync(path.dirname(a.path), O_PATH | fs.constants.O_DIRECTORY)
  let open = true
  const close = () => {
    if (open) fs.closeSync(fd)
    open = false
  }
  try {
    return net.connect(`/proc/self/fd/${fd}/${path.basename(a.path)}`).once('connect', close).once('close', close)
  } catch (e) {
    close()
    throw e
  }
}
