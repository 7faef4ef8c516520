/** Opens connections: connects the transport, starts the peer and initializes the server. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import { type AppServerError } from "../../AppServerError.ts"
import type { Metadata } from "../../Metadata.ts"
import type { Connection, Transport } from "../../Transport.ts"
import { makePeer, type Options as PeerOptions, type Peer } from "../jsonrpc/peer.ts"
import { observeRequests } from "../telemetry/connectionMetrics.ts"
import { keepAlive } from "./keepAlive.ts"

/** A connection to a server that is initialized. */
export interface OpenConnection {
  readonly peer: Peer
  readonly metadata: Metadata
  /** Whether the server outlives the connection. */
  readonly isShared: boolean
  /** Waits for the end of the connection, and returns its cause. */
  readonly awaitClosed: Effect.Effect<AppServerError>
  readonly close: Effect.Effect<void>
}

/** Opens a connection in a scope of its own, which closes if the connection fails to open. */
export const openConnection = (
  transport: Transport["Service"],
  parent: Scope.Scope,
  peerOptions: PeerOptions,
  handshake: (peer: Peer, connection: Connection) => Effect.Effect<Metadata, AppServerError>
): Effect.Effect<OpenConnection, AppServerError> =>
  Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const scope = yield* Scope.fork(parent)
    const close = Scope.close(scope, Exit.void)
    const closed = Deferred.makeUnsafe<AppServerError>()
    const open = Effect.gen(function*() {
      const connection = yield* transport.connect
      const peer = yield* makePeer(connection, {
        ...peerOptions,
        onClose: (error, batch) => {
          peerOptions.onClose(error, batch)
          batch.afterBatch(() => Deferred.doneUnsafe(closed, Exit.succeed(error)))
        }
      })
      yield* observeRequests(peer.requestsInFlight)
      const metadata = yield* handshake(peer, connection)
      if (connection.keepAlive !== undefined) yield* Effect.forkScoped(keepAlive(peer, connection.keepAlive))
      return { peer, metadata, isShared: connection.isShared === true, awaitClosed: Deferred.await(closed), close }
    })
    return yield* restore(Scope.provide(open, scope)).pipe(Effect.onError(() => close))
  }))
