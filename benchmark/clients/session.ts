/** The work of a client without an SDK: requests, and a table of pending responses and turns. */
import { begin, end, plan, Totals } from "../plan.ts"

export interface Client {
  readonly request: (method: string, params: unknown) => Promise<unknown>
  readonly notify: (method: string, params?: unknown) => void
  readonly close: () => void
}

interface Notification {
  readonly method: string
  readonly params: any
}

const totals = new Totals()
/** The consumer of the events of a thread's turn. */
const turns = new Map<string, { readonly onDelta: (delta: string) => void; readonly onEnd: () => void }>()

/** Routes a notification to its turn. */
export const route = ({ method, params }: Notification): void => {
  if (method === "item/agentMessage/delta") turns.get(params.threadId)?.onDelta(params.delta)
  else if (method === "item/completed" && plan.kind === "big") turns.get(params.threadId)?.onDelta(params.item.text)
  else if (method === "turn/completed") turns.get(params.threadId)?.onEnd()
}

const initialize = async (client: Client): Promise<void> => {
  await client.request("initialize", {
    clientInfo: { name: "benchmark", title: null, version: "1.0.0" },
    capabilities: { experimentalApi: true }
  })
  client.notify("initialized")
}

const startThread = async (client: Client): Promise<string> => {
  const { thread } = await client.request("thread/start", {}) as { readonly thread: { readonly id: string } }
  return thread.id
}

/** Runs a turn. Its events may precede the response with its id, so they are routed by thread. */
const runTurn = (client: Client, threadId: string): Promise<void> =>
  new Promise((resolve) => {
    turns.set(threadId, { onDelta: (delta) => totals.add(delta), onEnd: resolve })
    void client.request("turn/start", { threadId, input: [{ type: "text", text: "go" }] })
  })

const times = async (count: number, action: () => Promise<unknown>): Promise<void> => {
  if (count === 0) return
  await action()
  return times(count - 1, action)
}

/** A loop, because a chain of promises is too long for this number of requests. */
const inTurn = (count: number, action: () => Promise<unknown>): Promise<void> =>
  new Promise((resolve) => {
    let left = count
    const next = (): void => {
      if (left-- === 0) resolve()
      else void action().then(next)
    }
    next()
  })

const runTurns = async (client: Client): Promise<void> => {
  await initialize(client)
  const start = () => Promise.all(Array.from({ length: plan.turns }, () => startThread(client)))
  if (plan.kind === "real") {
    const threadIds = await start()
    begin()
    await Promise.all(threadIds.map((threadId) => inTurn(plan.messages, () => runTurn(client, threadId))))
    return end()
  }
  const first = await start()
  begin()
  await Promise.all(first.map((threadId) => runTurn(client, threadId)))
  await times((plan.rounds ?? 1) - 1, async () => {
    const threadIds = await start()
    await Promise.all(threadIds.map((threadId) => runTurn(client, threadId)))
  })
  end(totals.check())
}

const runRequests = async (client: Client): Promise<void> => {
  await initialize(client)
  const list = () => client.request("model/list", {})
  await inTurn(200, list)
  begin()
  if (plan.mode === "sequential") await inTurn(plan.messages, list)
  else await inTurn(plan.messages / 1000, () => Promise.all(Array.from({ length: 1000 }, list)))
  end()
}

export const run = async (client: Client): Promise<void> => {
  if (plan.first) {
    await initialize(client)
    await client.request("model/list", {})
  } else if (plan.mode === "sequential" || plan.mode === "concurrent") {
    await runRequests(client)
  } else {
    await runTurns(client)
  }
  client.close()
}

/** Pending requests, by id. */
export class Pending {
  private readonly waiting = new Map<number, (result: unknown) => void>()
  private nextId = 1

  add(resolve: (result: unknown) => void): number {
    const id = this.nextId++
    this.waiting.set(id, resolve)
    return id
  }

  settle(id: number, result: unknown): void {
    this.waiting.get(id)?.(result)
    this.waiting.delete(id)
  }
}

/** Routes a message. */
export const receive = (pending: Pending, message: any): void => {
  if (message.method === undefined) pending.settle(message.id, message.result)
  else route(message)
}
