/** The plan of a run: the work of the server and the client, and the check of the result. */
import { readFileSync } from "node:fs"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { texts } from "./texts.ts"

export interface Plan {
  /**
   * The work of the server after all turns have started: deltas as fast as the client reads, one paced write for each delta, or long
   * lines. With `real` the server is Codex. With `fold` there is no server: the client folds notifications that it has parsed.
   */
  readonly kind: "flood" | "paced" | "big" | "real" | "fold"
  /**
   * The work of the client: read the events of each turn in arrays or one by one, at once or slowly, its text, its view, or only its
   * result. Or send requests, sequentially or a thousand at once. Or fold events into the view of their thread.
   */
  readonly mode?: "arrays" | "each" | "text" | "view" | "run" | "slow" | "sequential" | "concurrent" | "thread"
  /** The number of concurrent turns, each on a thread of its own. Their messages are interleaved. */
  readonly turns: number
  /** The number of messages of all turns together, or of requests. With `real`: the number of turns for each thread. */
  readonly messages: number
  /** With `fold`: the number of items that each turn already has. */
  readonly items?: number
  /** With `paced`: messages a second, and whether the server sleeps between them instead of polling the clock. */
  readonly rate?: number
  readonly sleep?: boolean
  /** With `paced`: whether a text is the time of its write, in nanoseconds. */
  readonly stamped?: boolean
  /** With `big`: the length of a line, in bytes. */
  readonly lineBytes?: number
  /** The number of repetitions, each with new threads. */
  readonly rounds?: number
  /** With `real`: the socket on which the binary listens, in place of its stdin and stdout. */
  readonly socket?: "WebSocket" | "Unix socket"
  /** With `real`: the number of app-servers, as a pool. */
  readonly members?: number
  /** Whether the program has a tracer, whose spans stay in memory until they end. */
  readonly traced?: boolean
  /** With `real`: the binary, and whether the client waits only for the first response. */
  readonly binary?: string
  readonly first?: boolean
}

/** The plan of this client process. */
export const plan: Plan = JSON.parse(process.argv[2] ?? "{}")

/** The command with which a client starts the server of its plan. */
export const server = {
  command: plan.binary ?? fileURLToPath(new URL("server.mjs", import.meta.url)),
  /** `jsonrpc` is for clients that need the member that this protocol omits. */
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

/** Starts the measurement. */
export const begin = (): void => {
  wall = performance.now()
  cpu = process.cpuUsage()
}

/** Ends the measurement and prints it together with `more`. */
export const end = (more: Measurement = {}): void => {
  const wallMs = performance.now() - wall
  const { system, user } = process.cpuUsage(cpu)
  measured = { wallMs, cpuMs: (user + system) / 1000, rssMb: process.resourceUsage().maxRSS / 1024, ...more }
}

/** The heap size after a collection, in megabytes. Needs `--expose-gc`. */
export const heapMb = (): number => {
  globalThis.gc!()
  globalThis.gc!()
  return process.memoryUsage().heapUsed / 1e6
}

/** CPU time of this process and of its exited children, in milliseconds, where the system reports it. */
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

/** The consumer of a turn: counts its events, and sums the lengths of their texts. */
export class Totals {
  private messages = 0
  private characters = 0
  private readonly delays: Array<number> = []

  add(delta: string): void {
    this.messages++
    this.characters += delta.length
    if (plan.stamped) this.delays.push(Number(process.hrtime.bigint() - BigInt(delta)) / 1000)
  }

  /** As `add`, for a subscriber that receives coalesced deltas. */
  addText(text: string): void {
    this.characters += text.length
  }

  /** Fails if a text is missing. */
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
    // The first messages measure a cold start.
    const delays = this.delays.slice(this.delays.length / 4).sort((a, b) => a - b)
    const percentile = (p: number) => delays[Math.floor(delays.length * p)]!
    return { p50Us: percentile(0.5), p99Us: percentile(0.99) }
  }
}

const perBlock = plan.turns * Math.max(1, Math.ceil(4096 / plan.turns))

/** The text of the nth message. The server prepares the same one. */
const textOf = (n: number): string => texts[(plan.kind === "flood" ? n % perBlock : n) % texts.length]!
