/** Opens a WebSocket, with one message a frame. */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import { exceedsBytes } from "../exceedsBytes.ts"
import { SyncQueue } from "../syncQueue.ts"
import type { Address } from "./address.ts"
import { connectFailed, readFailed, socketClosed } from "./socketError.ts"

const closed = 3

/** Closes a WebSocket, and ends it if the server does not respond to the close in time. */
const close = (socket: Socket.WebSocketLike, timeout: Duration.Duration): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    if (socket.readyState === closed) return resume(Effect.void)
    socket.addEventListener("close", () => resume(Effect.void))
    // A WebSocket that is closed during its handshake reports an error.
    socket.addEventListener("error", () => {})
    socket.close(1000)
  }).pipe(
    Effect.timeoutOrElse({
      duration: timeout,
      orElse: () =>
        Effect.sync(() => {
          if (Predicate.hasProperty(socket, "terminate") && Predicate.isFunction(socket.terminate)) socket.terminate()
        })
    }),
    // A finalizer is uninterruptible, and so a timeout within it would not end the wait.
    Effect.interruptible,
    Effect.forkChild,
    Effect.flatMap(Fiber.join)
  )

interface Options {
  readonly address: Address
  readonly headers: Readonly<Record<string, string>> | undefined
  readonly redact: (text: string) => string
  readonly openTimeout: Duration.Duration
  readonly closeTimeout: Duration.Duration
  readonly maxMessageBytes: number
}

/** The messages of an open WebSocket. */
export interface OpenSocket {
  /** Calls a function with the messages that arrive, until the socket has ended. Fails with the reason. */
  readonly receive: (onMessages: (messages: ReadonlyArray<string>) => void) => Effect.Effect<never, AppServerError>
  /** Sends messages. Does nothing after the end of the socket. */
  readonly send: (messages: ReadonlyArray<string>) => void
}

/** Opens a WebSocket for the lifetime of the scope. */
export const openSocket = Effect.fnUntraced(function*(
  { address, closeTimeout, headers, maxMessageBytes, openTimeout, redact }: Options
): Effect.fn.Return<OpenSocket, AppServerError, Socket.WebSocketConstructor | Scope.Scope> {
  const makeWebSocket = yield* Socket.WebSocketConstructor
  const socket = yield* Socket.fromWebSocket(
    Effect.acquireRelease(
      Effect.try({
        try: () => makeWebSocket(address.url, headers === undefined ? undefined : { headers }),
        catch: (cause) => new Socket.SocketError({ reason: new Socket.SocketOpenError({ kind: "Unknown", cause }) })
      }),
      (webSocket) => close(webSocket, closeTimeout)
    ),
    { openTimeout }
  )
  const { pull } = yield* Effect.mapError(
    socket.reader,
    (error) => connectFailed(error, { address, hasToken: headers !== undefined, redact })
  )
  const { writeAll } = yield* socket.writer

  const outgoing: Array<string> = []
  const queue = new SyncQueue<string>(() => outgoing.splice(0))
  yield* Stream.runForEachArray(queue.stream, writeAll).pipe(
    // A socket that cannot be written to has ended. `receive` reports its end.
    Effect.ignore,
    Effect.forkScoped({ startImmediately: true })
  )
  const decoder = new TextDecoder()

  return {
    send: (messages) => {
      for (const message of messages) outgoing.push(message)
      queue.notify()
    },
    receive: (onMessages) =>
      pull.pipe(
        Effect.mapError((error) => readFailed(error, address, redact)),
        Effect.flatMap((frames) => {
          const messages = frames.map((frame) => Predicate.isString(frame) ? frame : decoder.decode(frame))
          const tooLarge = messages.findIndex((message) => exceedsBytes(message, maxMessageBytes))
          // Without a message, the messages after it would have another meaning.
          onMessages(tooLarge === -1 ? messages : messages.slice(0, tooLarge))
          return tooLarge === -1 ? Effect.void : Effect.fail(socketClosed(
            `the server sent a message of more than ${maxMessageBytes} bytes. Raise or remove the option \`maxMessageBytes\``,
            address
          ))
        }),
        Effect.forever({ disableYield: true })
      )
  }
})
