/** What a run is about: what the server does, and what the client has to do and to show for it. */
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { texts } from "./texts.ts"

export interface Plan {
  /**
   * What the server does once all turns have started: deltas as fast as they are read, or one write each at a pace, or long
   * lines. With `real` the server is Codex.
   */
  readonly kind: "flood" | "paced" | "big" | "real"
  /**
   * What the client does: it takes each turn's events in arrays or one by one, slowly or as they come, its text, or only its
   * result; or it makes requests, one after the other or a thousand at once.
   */
  readonly mode?: "arrays" | "each" | "text" | "run" | "slow" | "sequential" | "concurrent"
  /** How many turns run at once, each on a thread of its own; messages take turns among them. */
  readonly turns: number
  /** How many messages all turns have together, or how many requests are made; with `real`, how many turns a thread has. */
  readonly messages: number
  /** With `paced`: messages a second, and whether the server sleeps between them instead of watching the clock. */
  readonly rate?: number
  readonly sleep?: boolean
  /** With `paced`: whether a text is the time at which it was written, in nanoseconds. */
  readonly stamped?: boolean
  /** With `big`: the length of a line. */
  readonly lineBytes?: number
  /** How often the whole is repeated, with new threads. */
  readonly rounds?: number
  /** With `real`: the binary, and whether only the first answer is waited for. */
  readonly binary?: string
  readonly first?: boolean
}

/** The plan that a client was started with. */
export const plan: Plan = JSON.parse(process.argv[2] ?? "{}")

/** How a client starts the server of its plan. */
export const server = {
  command: plan.binary ?? fileURLToPath(new URL("server.mjs", import.meta.url)),
  /** `jsonrpc` is for clients that want the member which this protocol leaves out. */
  env: (jsonrpc = false): NodeJS.ProcessEnv => ({
    ...process.env,
    BENCHMARK_PLAN: JSON.stringify({ ...plan, texts, jsonrpc })
  })
}

export interface Measurement {
  readonly [name: string]: number
}

let wall = 0
let cpu: NodeJS.CpuUsage | undefined
let measured: Record<string, number> = {}

/** What is measured begins. */
export const begin = (): void => {
  wall = performance.now()
  cpu = process.cpuUsage()
}

/** What is measured has ended; `more` goes with it. */
export const end = (more: Measurement = {}): void => {
  const wallMs = performance.now() - wall
  const { system, user } = process.cpuUsage(cpu)
  measured = { wallMs, cpuMs: (user + system) / 1000, rssMb: process.resourceUsage().maxRSS / 1024, ...more }
}

/** CPU of this process and of those that it has started and that have ended, in milliseconds, where the system tells. */
const treeCpuMs = (): number | undefined => {
  try {
    const fields = readFileSync("/proc/self/stat", "utf8").split(") ")[1]!.split(" ")
    return fields.slice(11, 15).reduce((sum, ticks) => sum + Number(ticks) * 10, 0)
  } catch {
    return undefined
  }
}

process.on("exit", () => {
  const treeMs = treeCpuMs()
  process.stdout.write(JSON.stringify({ ...measured, ...(treeMs === undefined ? {} : { treeMs }) }))
})

/** What a consumer does with the events of a turn: it counts them, and adds up the lengths of their texts. */
export class Totals {
  private messages = 0
  private characters = 0
  private readonly delays: Array<number> = []

  add(delta: string): void {
    this.messages++
    this.characters += delta.length
    if (plan.stamped) this.delays.push(Number(process.hrtime.bigint() - BigInt(delta)) / 1000)
  }

  /** As `add`, for a reader that is given several deltas as one. */
  addText(text: string): void {
    this.characters += text.length
  }

  /** Nothing may be missing. */
  check(): Measurement {
    const messages = plan.messages * (plan.rounds ?? 1)
    if (!plan.stamped && (plan.kind === "flood" || plan.kind === "paced")) {
      let characters = 0
      for (let i = 0; i < plan.messages; i++) characters += textOf(i).length
      characters *= plan.rounds ?? 1
      if (this.characters !== characters) throw new Error(`${this.characters} of ${characters} characters`)
    }
    if (this.messages !== 0 && this.messages !== messages) throw new Error(`${this.messages} of ${messages} messages`)
    if (this.delays.length === 0) return {}
    // The first ones are those of a cold start.
    const delays = this.delays.slice(this.delays.length / 4).sort((a, b) => a - b)
    const percentile = (p: number) => delays[Math.floor(delays.length * p)]!
    return { p50Us: percentile(0.5), p99Us: percentile(0.99) }
  }
}

const perBlock = plan.turns * Math.max(1, Math.ceil(4096 / plan.turns))

/** The text of the nth message, as the server prepares it. */
const textOf = (n: number): string => texts[(plan.kind === "flood" ? n % perBlock : n) % texts.length]!
