/** Ends a connection whose server is silent, because a transport may not notice that a connection is lost. */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { connectionClosed } from "../jsonrpc/connectionClosed.ts"
import { Request } from "../jsonrpc/outgoingRequests.ts"
import type { Peer } from "../jsonrpc/peer.ts"

/**
 * Time to read what has arrived before the connection ends. After the program has blocked the event loop, timers run before the messages are
 * read.
 */
const readGrace = Duration.millis(100)

/** Sends a request when the server was silent for `interval`, and ends the connection after another such interval. */
export const keepAlive = Effect.fnUntraced(function*(peer: Peer, interval: Duration.Duration): Effect.fn.Return<void> {
  const timeoutMillis = Duration.toMillis(interval)
  let read = peer.batches()
  const isSilent = () => {
    const before = read
    read = peer.batches()
    return before === read
  }
  while (peer.closed() === undefined) {
    yield* Effect.sleep(interval)
    if (!isSilent()) continue
    const deadline = (yield* Clock.currentTimeMillis) + timeoutMillis
    // Any message is a sign of life, and so is an error.
    yield* Effect.ignore(peer.request(
      new Request({
        method: "thread/loaded/list",
        params: `{"limit":1}`,
        deadline,
        timeoutMillis,
        bypassLimit: true,
        onSend: undefined
      })
    ))
    if (!isSilent()) continue
    yield* Effect.sleep(readGrace)
    if (isSilent()) {
      peer.close(connectionClosed(
        `the server sent nothing for ${Duration.format(Duration.times(interval, 2))}, and did not respond to a request`
      ))
    }
  }
})
