/** A minimal JSON-RPC client, to test servers without the SDK. It keeps all messages that it received. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as SubscriptionRef from "effect/SubscriptionRef"

/** A message of the server: a response, a notification or a request. */
export interface Message {
  readonly id?: number | string
  readonly method?: string
  readonly params?: any
  readonly result?: any
  readonly error?: { readonly code: number; readonly message: string }
}

/** Makes a client on lines, and initializes the connection. */
export const makeJsonClient = Effect.fnUntraced(function*(
  incoming: Stream.Stream<string, unknown>,
  sendLine: (line: string) => Effect.Effect<unknown, unknown>
) {
  const received = yield* SubscriptionRef.make<ReadonlyArray<Message>>([])
  yield* incoming.pipe(
    Stream.runForEach((line) => SubscriptionRef.update(received, (all) => [...all, JSON.parse(line) as Message])),
    Effect.ignore,
    Effect.forkScoped
  )
  const send = (message: object) => Effect.orDie(sendLine(JSON.stringify(message)))

  /** Waits for the first message that satisfies the predicate, of those received from a position on. */
  const awaitMessage = (predicate: (message: Message) => boolean, from = 0) =>
    SubscriptionRef.changes(received).pipe(
      Stream.map((messages) => messages.slice(from).find(predicate)),
      Stream.filter((message) => message !== undefined),
      Stream.runHead,
      Effect.map(Option.getOrThrow),
      Effect.timeout("10 seconds")
    )

  let lastId = 0
  /** Sends a request, and waits for its response. */
  const call = Effect.fnUntraced(function*(method: string, params: object = {}) {
    const id = ++lastId
    yield* send({ id, method, params })
    return yield* awaitMessage((message) => message.id === id && message.method === undefined)
  })

  yield* call("initialize", {
    clientInfo: { name: "json_client", title: null, version: "0.0.0" },
    capabilities: { experimentalApi: true }
  })
  yield* send({ method: "initialized" })
  return { received: SubscriptionRef.get(received), send, awaitMessage, call }
})
