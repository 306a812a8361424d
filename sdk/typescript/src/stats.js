/** What this process uses. */
export class Meter {
  #at = process.hrtime.bigint()
  #cpu = -1

  /** @returns {import('./index.d.ts').Usage} */
  measure() {
    const { user, system } = process.cpuUsage()
    const now = process.hrtime.bigint()
    const wall = Number(now - this.#at) / 1000
    const percent = this.#cpu < 0 || wall <= 0 ? 0 : Math.round(((user + system - this.#cpu) / wall) * 1e4) / 100
    this.#at = now
    this.#cpu = user + system
    const { rss, heapUsed, heapTotal, external } = process.memoryUsage()
    return { cpu: { user, system, percent }, memory: { rss, heapUsed, heapTotal, external }, uptime: process.uptime() }
  }
}
