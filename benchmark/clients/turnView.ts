/** Folds deltas into views, without a server. */
import { ThreadView, TurnView } from "effect-codex"
import { begin, end, heapMb, plan } from "../plan.ts"
import { texts } from "../texts.ts"

const threadId = "01a202b0-92d7-7af0-b1d3-7c004a056f01"

/** The JSON of the notifications, which a program receives one by one. */
const delta = (turnId: string, itemId: string, text: string): string =>
  JSON.stringify({
    method: "item/agentMessage/delta",
    params: { threadId, turnId, itemId, delta: text },
    emittedAtMs: 1
  })

const completed = (turnId: string, id: string): string =>
  JSON.stringify({
    method: "item/completed",
    params: { threadId, turnId, item: { type: "agentMessage", id, text: "done", phase: null }, completedAtMs: 1 },
    emittedAtMs: 1
  })

/** A view of the turns of a thread, each with items that have completed. */
const makeView = (turns: number, items: number): ThreadView.ThreadView => {
  let view = ThreadView.empty(threadId)
  for (let turn = 0; turn < turns; turn++) {
    for (let item = 0; item < items; item++) {
      view = ThreadView.reduce(view, JSON.parse(completed(`turn-${turn}`, `item-${item}`)))
    }
  }
  return view
}

const { items = 0, messages, mode, turns } = plan

const lines = texts.map((text) => delta(`turn-${turns - 1}`, "message", text))

/** Parses the notifications before the measurement of their fold. Their texts are not shared, as those of a connection are not. */
const parse = (count: number): ReadonlyArray<TurnView.Event> =>
  Array.from({ length: count }, (_, i) => JSON.parse(lines[i % lines.length]!))

/** Keeps the result reachable until the heap is measured. */
let kept: unknown

const measureHeap = (): void => {
  const before = heapMb()
  begin()
  if (mode === "text") {
    const parts: Array<string> = []
    for (let i = 0; i < messages; i++) parts.push(JSON.parse(lines[i % lines.length]!).params.delta)
    kept = parts.splice(0).join("")
  } else if (messages > 0) {
    let view = TurnView.empty(threadId, `turn-${turns - 1}`)
    for (let i = 0; i < messages; i++) view = TurnView.reduce(view, JSON.parse(lines[i % lines.length]!))
    kept = view
  } else {
    kept = makeView(turns, items)
  }
  end({ heapGrowthMb: heapMb() - before })
}

const foldTurn = (count: number): TurnView.TurnView => {
  const events = parse(count)
  const start = makeView(1, items).turns[0] ?? TurnView.empty(threadId, "turn-0")
  begin()
  return events.reduce(TurnView.reduce, start)
}

const foldThread = (count: number): ThreadView.ThreadView => {
  const events = parse(count) as ReadonlyArray<ThreadView.Event>
  const start = makeView(turns, items)
  begin()
  return events.reduce(ThreadView.reduce, start)
}

const measureFold = (): void => {
  const fold = mode === "thread" ? foldThread : foldTurn
  fold(10_000)
  kept = fold(messages)
  end()
}

if (globalThis.gc !== undefined) measureHeap()
else measureFold()

if (kept === undefined) throw new Error("The benchmark has folded nothing")
