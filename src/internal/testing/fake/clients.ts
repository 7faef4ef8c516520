/** The connections of the fake: what it sends to clients, and the requests that wait for a response from one. */
import type * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type { AppServerError } from "../../../AppServerError.ts"
import { DuplicateMessages } from "./duplicateMessages.ts"

/** A message that a client sent: a request, a notification or a response. */
export interface ClientMessage {
  readonly id?: string | number
  readonly method?: string
  readonly params?: { readonly [name: string]: unknown }
  readonly result?: unknown
  readonly error?: { readonly code: number; readonly message: string; readonly data?: unknown }
}

/** An open connection, from the server's side. */
export interface Client {
  readonly outgoing: Queue.Queue<Uint8Array, AppServerError | Cause.Done>
  initialized: boolean
  /** The ids of the threads that the client is not subscribed to. */
  readonly unsubscribed: Set<string>
}

interface WireOptions {
  readonly latency?: Duration.Input | undefined
  readonly splitAtEveryByte?: boolean | undefined
  readonly duplicateMessages?: boolean | undefined
}

const encoder = new TextEncoder()

export const makeClients = (options: WireOptions) => {
  const clients = new Set<Client>()
  const pending = new Map<number, Deferred.Deferred<ClientMessage>>()
  let lastRequestId = -1

  const toChunks = (text: string): ReadonlyArray<Uint8Array> => {
    const bytes = encoder.encode(text)
    return options.splitAtEveryByte === true
      ? Array.from(bytes, (_, index) => bytes.subarray(index, index + 1))
      : [bytes]
  }

  const write = (client: Client, text: string) => Effect.asVoid(Queue.offerAll(client.outgoing, toChunks(text)))

  const send = Effect.fnUntraced(function*(client: Client, message: object) {
    if (options.latency !== undefined) yield* Effect.sleep(options.latency)
    const line = JSON.stringify(message) + "\n"
    const isDuplicate = options.duplicateMessages === true || (yield* DuplicateMessages)
    yield* write(client, isDuplicate ? line + line : line)
  })

  const forEach = (f: (client: Client) => Effect.Effect<unknown>) => Effect.forEach([...clients], f, { discard: true })

  /** Notifies every client, or those that are subscribed to a thread. */
  const notify = (method: string, params: object, subscribedTo?: string) =>
    Effect.flatMap(
      Clock.currentTimeMillis,
      (emittedAtMs) =>
        forEach((client) =>
          subscribedTo !== undefined && client.unsubscribed.has(subscribedTo)
            ? Effect.void
            : send(client, { method, params, emittedAtMs })
        )
    )

  /** Sends a request to every client and waits for the first response. `onId` receives the id of the request. */
  const request = Effect.fnUntraced(function*(method: string, params: object, onId?: (id: number) => void) {
    const id = ++lastRequestId
    onId?.(id)
    const response = yield* Deferred.make<ClientMessage>()
    pending.set(id, response)
    yield* forEach((client) => send(client, { method, id, params }))
    return yield* Effect.ensuring(Deferred.await(response), Effect.sync(() => pending.delete(id)))
  })

  return {
    /** Opens a connection, which closes with the scope. */
    open: Effect.acquireRelease(
      Effect.gen(function*() {
        const client: Client = {
          outgoing: yield* Queue.unbounded<Uint8Array, AppServerError | Cause.Done>(),
          initialized: false,
          unsubscribed: new Set()
        }
        clients.add(client)
        return client
      }),
      (client) => Effect.sync(() => clients.delete(client))
    ),
    send,
    notify,
    request,
    /** Completes the request that a client responded to. */
    settle: (response: ClientMessage) => {
      const waiting = typeof response.id === "number" ? pending.get(response.id) : undefined
      return waiting === undefined ? Effect.void : Deferred.succeed(waiting, response)
    },
    /** Sends a line unchanged to every client. */
    writeLine: (text: string) => forEach((client) => write(client, `${text}\n`)),
    /** Ends every connection, after a part of one more line. */
    failAll: Effect.fnUntraced(function*(error: AppServerError, midLine = "") {
      yield* forEach((client) =>
        Effect.andThen(
          midLine === "" ? Effect.void : write(client, midLine),
          Queue.fail(client.outgoing, error)
        )
      )
      clients.clear()
    })
  }
}

export type Clients = ReturnType<typeof makeClients>
