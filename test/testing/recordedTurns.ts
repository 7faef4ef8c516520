/** Reads the events of recorded turns, and the turns as the server has stored them. */
import { Protocol, type TurnView } from "effect-codex"
import * as Schema from "effect/Schema"
import { readFileSync } from "node:fs"

interface Message {
  readonly id?: string | number
  readonly method?: string
  readonly params?: any
  readonly result?: any
}

interface Recording {
  /** The notifications and requests of the server, in their order. */
  readonly events: ReadonlyArray<TurnView.Event>
  /** The stored turns with all their items. */
  readonly turns: ReadonlyArray<{ readonly threadId: string; readonly turn: Protocol.Turn }>
}

const decodeNotification = Schema.decodeUnknownSync(Protocol.ServerNotification)
const decodeTurn = Schema.decodeUnknownSync(Protocol.Turn)

/** The turns in a response. A page of turns does not name its thread, but the request does. */
const readTurns = (request: Message | undefined, result: any): ReadonlyArray<any> => {
  if (result === undefined) return []
  if (request?.method === "thread/turns/list" && request.params.itemsView === "full") return result.data
  return request?.method === "thread/read" ? result.thread.turns : []
}

export const readRecording = (path: string): Recording => {
  const events: Array<TurnView.Event> = []
  const turns: Array<{ readonly threadId: string; readonly turn: Protocol.Turn }> = []
  const requests = new Map<unknown, Message>()
  for (const line of readFileSync(path, "utf8").trimEnd().split("\n").slice(1)) {
    const { direction, message } = JSON.parse(line) as { direction: string; message?: Message }
    if (message === undefined) continue
    if (direction === "client") {
      if (message.method !== undefined) requests.set(message.id, message)
    } else if (message.method === undefined) {
      const request = requests.get(message.id)
      for (const turn of readTurns(request, message.result)) {
        turns.push({ threadId: request!.params.threadId, turn: decodeTurn(turn) })
      }
    } else if (message.id === undefined) {
      events.push(decodeNotification(message) as TurnView.Event)
    } else {
      events.push(message as TurnView.Event)
    }
  }
  return { events, turns }
}
