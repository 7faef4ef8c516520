/** The session of a client without an SDK: its requests, and maps of pending requests and running turns. */
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
/** The handlers of the running turns, by thread id. */
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

/** Runs a turn. Events are routed by thread id, because they may precede the response with the turn id. */
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

/** Runs an action sequentially, without a chain of promises: there can be tens of thousands of runs. */
const sequentially = (count: number, action: () => Promise<unknown>): Promise<void> =>
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
    await Promise.all(threadIds.map((threadId) => sequentially(plan.messages, () => runTurn(client, threadId))))
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
  await sequentially(200, list)
  begin()
  if (plan.mode === "sequential") await sequentially(plan.messages, list)
  else await sequentially(plan.messages / 1000, () => Promise.all(Array.from({ length: 1000 }, list)))
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

/** Pending requests by id. */
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

/** Settles the pending request of a response, or routes a notification. */
export const receive = (pending: Pending, message: any): void => {
  if (message.method === undefined) pending.settle(message.id, message.result)
  else route(message)
}
