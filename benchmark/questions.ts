/** The questions of the benchmark: which clients run which plan, and the target of this package. */
import type { Plan } from "./plan.ts"

export type Client =
  | "count"
  | "raw"
  | "readline"
  | "vscodeJsonrpc"
  | "acp"
  | "codexSdk"
  | "naiveEffect"
  | "effectCodex"
  | "turnView"

/** A client and its plan: one row of a table. */
export interface Case {
  readonly name: string
  readonly client: Client
  readonly plan: Plan
  /**
   * How the client is built. Node needs about 50 ms to strip types from `source`; `bundle` is one file with all imports.
   *
   * @default "source"
   */
  readonly form?: Form
}

export type Form = "source" | "javascript" | "bundle"

export interface Question {
  readonly id: string
  readonly title: string
  /** The compared fields of a measurement, and the number by which each is divided. */
  readonly figures: ReadonlyArray<{
    readonly of: string
    readonly label: string
    readonly per?: number
    /** Maximum ratio of this package to the baseline. */
    readonly target?: number
  }>
  /** The first case is the baseline of the others. */
  readonly cases: ReadonlyArray<Case>
  /**
   * Number of runs of each case.
   *
   * @default the option `--rounds`
   */
  readonly rounds?: number
}

const names: Record<Client, string> = {
  count: "count newlines",
  raw: "hand-written loop",
  readline: "Node readline",
  vscodeJsonrpc: "vscode-jsonrpc",
  acp: "@agentclientprotocol/sdk",
  codexSdk: "@openai/codex-sdk",
  naiveEffect: "naive Effect pipeline",
  effectCodex: "effect-codex",
  turnView: "effect-codex"
}

const cases = (clients: ReadonlyArray<Client>, plan: Plan): ReadonlyArray<Case> =>
  clients.map((client) => ({ name: names[client], client, plan }))

const one = (client: Client, name: string, plan: Plan, form: Form = "source"): Case => ({ name, client, plan, form })

const bundled = "effect-codex, with Effect in one file"

const micros = (label: string, messages: number, target?: number) => ({
  of: "cpuMs",
  label,
  per: messages / 1000,
  ...(target === undefined ? {} : { target })
})

const first: Plan = { kind: "real", turns: 1, messages: 1, first: true }
const tenThreads: Plan = { kind: "real", turns: 10, messages: 5 }
const manyThreads: Plan = { kind: "real", turns: 32, messages: 3 }
const fold: Plan = { kind: "fold", turns: 1, messages: 300_000 }
const twentyTurns: Plan = { kind: "real", turns: 1, messages: 20 }
/** 3,000 turns, a hundred at a time. */
const shortTurns: Plan = { kind: "flood", turns: 100, messages: 100, rounds: 30, mode: "run" }
const flood: Plan = { kind: "flood", turns: 1, messages: 300_000 }

export const questions: ReadonlyArray<Question> = [
  {
    id: "stream",
    title: "A streamed delta, decoded, one turn",
    figures: [micros("CPU, µs per delta", flood.messages, 1.3)],
    cases: [
      ...cases(["raw", "count", "readline", "acp", "vscodeJsonrpc", "naiveEffect", "effectCodex"], flood),
      one("effectCodex", "effect-codex, one event at a time", { ...flood, mode: "each" }),
      one("effectCodex", "effect-codex, `turn.text`", { ...flood, mode: "text" })
    ]
  },
  ...([[10, 1.4, 300_000], [100, 1.6, 1_000_000], [1000, 2.5, 1_000_000]] as const).map((
    [turns, target, messages]
  ): Question => ({
    id: `interleaved-${turns}`,
    title: `The same with ${turns.toLocaleString("en")} turns interleaved message by message`,
    figures: [micros("CPU with the start of the turns, µs per delta", messages, target)],
    cases: cases(["raw", "naiveEffect", "effectCodex"], { ...flood, turns, messages })
  })),
  {
    id: "run",
    title: "A delta of a turn without a subscriber (`run`)",
    figures: [micros("CPU, µs per delta", 1_000_000, 0.6)],
    cases: [
      one("raw", names.raw, { ...flood, messages: 1_000_000 }),
      one("effectCodex", names.effectCodex, { ...flood, messages: 1_000_000, mode: "run" })
    ]
  },
  {
    id: "paced",
    title: "One write a message at the server's own pace, 30,000 a second",
    figures: [micros("CPU, µs per delta", 60_000, 1.35)],
    cases: cases(["raw", "acp", "naiveEffect", "effectCodex"], {
      kind: "paced",
      turns: 1,
      messages: 60_000,
      rate: 30_000
    })
  },
  ...([[200, 300], [30_000, 60_000]] as const).map(([rate, messages]): Question => ({
    id: `delivery-${rate}`,
    title: `Delivery: from the server's write to the consumer's call, ${rate.toLocaleString("en")} a second`,
    figures: [{ of: "p50Us", label: "p50, µs", target: 1.15 }, { of: "p99Us", label: "p99, µs", target: 1.15 }],
    cases: cases(["raw", "acp", "effectCodex"], {
      kind: "paced",
      turns: 1,
      messages,
      rate,
      stamped: true,
      sleep: rate < 1000
    })
  })),
  {
    id: "sequential",
    title: "A request and its response, one after the other",
    figures: [
      { of: "wallMs", label: "wall, µs per request", per: 10, target: 1.1 },
      micros("CPU, µs per request", 10_000, 1.1)
    ],
    cases: cases(["raw", "acp", "vscodeJsonrpc", "effectCodex"], {
      kind: "flood",
      turns: 1,
      messages: 10_000,
      mode: "sequential"
    })
  },
  {
    id: "concurrent",
    title: "A thousand requests at once",
    figures: [
      { of: "wallMs", label: "wall, µs per request", per: 100, target: 1.5 },
      micros("CPU, µs per request", 100_000, 1.5)
    ],
    cases: cases(["raw", "acp", "vscodeJsonrpc", "effectCodex"], {
      kind: "flood",
      turns: 1,
      messages: 100_000,
      mode: "concurrent"
    })
  },
  {
    id: "start",
    title: "From process start to the first response and exit, real binary",
    figures: [{ of: "processMs", label: "wall, ms", target: 1.25 }],
    cases: [
      one("raw", names.raw, first, "javascript"),
      one("effectCodex", names.effectCodex, first, "javascript"),
      one("effectCodex", bundled, first, "bundle")
    ]
  },
  ...([[1, 20], [10, 5]] as const).map(([turns, messages]): Question => ({
    id: `turns-${turns}`,
    title: `Turns on the real binary, ${turns} thread${turns === 1 ? "" : "s"} × ${messages} turns`,
    figures: [
      { of: "wallMs", label: "wall, ms per turn", per: turns * messages, target: 1.05 },
      { of: "treeMs", label: "CPU with Codex's, ms per turn", per: turns * messages }
    ],
    cases: cases(["raw", "codexSdk", "effectCodex"], { kind: "real", turns, messages })
  })),
  {
    id: "sockets",
    title: "Turns on the real binary over a socket, 1 thread × 20 turns",
    figures: [
      { of: "wallMs", label: "wall, ms per turn", per: 20 },
      { of: "cpuMs", label: "CPU of the program, ms per turn", per: 20 }
    ],
    cases: [
      one("effectCodex", "effect-codex, stdin and stdout", twentyTurns),
      one("effectCodex", "effect-codex, WebSocket", { ...twentyTurns, socket: "WebSocket" }),
      one("effectCodex", "effect-codex, Unix socket", { ...twentyTurns, socket: "Unix socket" })
    ]
  },
  ...([
    ["turn", "A turn with one delta", shortTurns, shortTurns.turns * shortTurns.rounds!],
    ["delta", "A delta", flood, flood.messages],
    ["request", "A request", { kind: "flood", turns: 1, messages: 10_000, mode: "sequential" }, 10_000]
  ] as const).map(([name, title, plan, count]): Question => ({
    id: `traced-${name}`,
    title: `${title}, without and with a tracer`,
    figures: [micros(`CPU, µs per ${name}`, count)],
    cases: [
      one("effectCodex", "effect-codex, no tracer", plan),
      one("effectCodex", "effect-codex, a tracer in memory", { ...plan, traced: true })
    ]
  })),
  {
    id: "pool",
    title: "Turns on the real binary, 32 threads × 3 turns at once, on a pool",
    figures: [
      { of: "wallMs", label: "wall, ms per turn", per: 96 },
      { of: "treeMs", label: "CPU with Codex's, ms per turn", per: 96 },
      { of: "peakMb", label: "peak, MB" }
    ],
    rounds: 3,
    cases: [
      one("effectCodex", "effect-codex, one app-server", manyThreads),
      one("codexSdk", names.codexSdk, manyThreads),
      ...[1, 2, 4, 8].map((members) =>
        one("effectCodex", `\`CodexPool\`, ${members} app-server${members === 1 ? "" : "s"}`, {
          ...manyThreads,
          members
        })
      )
    ]
  },
  {
    id: "memory",
    title: "Memory of the program and Codex, 10 threads × 5 turns",
    figures: [{ of: "peakMb", label: "peak, MB" }],
    rounds: 3,
    cases: [
      ...cases(["raw", "codexSdk", "effectCodex"], tenThreads),
      one("effectCodex", bundled, tenThreads, "bundle")
    ]
  },
  {
    id: "lines",
    title: "One line of 16 MB, and the same bytes in lines of 1 MB",
    figures: [micros("CPU, ms per 16 MB", 6000)],
    cases: [
      one("raw", "hand-written loop, 6 × 16 MB", { kind: "big", turns: 1, messages: 6, lineBytes: 16_000_000 }),
      one("raw", "hand-written loop, 96 × 1 MB", { kind: "big", turns: 1, messages: 96, lineBytes: 1_000_000 }),
      one("effectCodex", "effect-codex, 6 × 16 MB", { kind: "big", turns: 1, messages: 6, lineBytes: 16_000_000 }),
      one("effectCodex", "effect-codex, 96 × 1 MB", { kind: "big", turns: 1, messages: 96, lineBytes: 1_000_000 })
    ]
  },
  ...[10_000, 100_000, 1_000_000].map((messages): Question => ({
    id: `growth-${messages}`,
    title: `${messages.toLocaleString("en")} deltas in one turn, from a cold start`,
    figures: [micros("CPU, µs per delta", messages)],
    cases: cases(["raw", "effectCodex"], { ...flood, messages })
  })),
  {
    id: "view",
    title: "A delta that is folded into a view, one turn",
    figures: [micros("CPU, µs per delta", flood.messages)],
    cases: [
      one("effectCodex", "effect-codex, `turn.events`", flood),
      one("effectCodex", "effect-codex, `turn.events` and `TurnView.reduce`", { ...flood, mode: "view" })
    ]
  },
  {
    id: "fold",
    title: "`reduce` alone, a delta",
    figures: [micros("CPU, µs per delta", 300_000)],
    cases: [
      one("turnView", "`TurnView`, one item", fold),
      one("turnView", "`TurnView`, 100 other items", { ...fold, items: 100 }),
      one("turnView", "`TurnView`, 1,000 other items", { ...fold, items: 1000 }),
      one("turnView", "`ThreadView`, 1,000 turns of 10 items", { ...fold, turns: 1000, items: 10, mode: "thread" })
    ]
  },
  {
    id: "view-heap",
    title: "Heap growth by views, after a collection",
    figures: [{ of: "heapGrowthMb", label: "MB" }],
    rounds: 3,
    cases: [
      one("turnView", "the text of 100,000 deltas", { ...fold, messages: 100_000, mode: "text" }),
      one("turnView", "a `TurnView` of 100,000 deltas", { ...fold, messages: 100_000 }),
      one("turnView", "a `ThreadView` of 1,000 turns of 10 items", { ...fold, turns: 1000, items: 10, messages: 0 })
    ]
  },
  {
    id: "heap",
    title: "Heap growth after a collection",
    figures: [{ of: "heapGrowthMb", label: "MB" }],
    rounds: 3,
    cases: [
      one("effectCodex", "1,000,000 deltas without a subscriber", { ...flood, messages: 1_000_000, mode: "run" }),
      one("effectCodex", "1,000,000 deltas, a subscriber 100 times too slow", {
        ...flood,
        messages: 1_000_000,
        mode: "slow"
      }),
      one("effectCodex", "10,000 turns of 10,000 threads", {
        ...flood,
        turns: 100,
        messages: 1000,
        rounds: 100,
        mode: "run"
      })
    ]
  }
]
