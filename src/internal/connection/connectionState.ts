/**
 * The state of a connection across restarts.
 *
 * | state      | event                                   | next state                    |
 * | ---------- | --------------------------------------- | ----------------------------- |
 * | `Starting` | a connection is open and initialized    | `Ready`                       |
 * | `Starting` | a connection fails to open, or ends     | `Starting`, with its cause    |
 * | `Starting` | the restart schedule has ended          | `Closed`, `RestartsExhausted` |
 * | `Ready`    | the connection ends, with `restart`     | `Starting`, with its cause    |
 * | `Ready`    | the connection ends, without `restart`  | `Closed`, with its cause      |
 * | any        | the scope closes                        | `Closed`                      |
 */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { AppServerError } from "../../AppServerError.ts"
import type { Metadata } from "../../Metadata.ts"
import type { Peer } from "../jsonrpc/peer.ts"
import { type ReadBatch, syncBatch } from "../jsonrpc/readBatch.ts"
import type { OpenConnection } from "./openConnection.ts"

/**
 * The state of a connection: it is being opened (again, after `cause`), it is in use, or it has ended and stays ended.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectionState =
  | { readonly _tag: "Starting"; readonly cause: AppServerError | undefined }
  | { readonly _tag: "Ready"; readonly metadata: Metadata }
  | { readonly _tag: "Closed"; readonly cause: AppServerError }

/** Holds the state. The reader changes it within a read batch, so it is a field and not a `SubscriptionRef`. */
export class ConnectionStates {
  private state: ConnectionState = { _tag: "Starting", cause: undefined }
  private readonly changes: PubSub.PubSub<ConnectionState>
  /** Completed when a connection is in use, or the state is `Closed`. */
  private settled = Deferred.makeUnsafe<void>()
  private connection: OpenConnection | undefined

  private constructor(changes: PubSub.PubSub<ConnectionState>) {
    this.changes = changes
  }

  static readonly make = Effect.map(
    PubSub.unbounded<ConnectionState>(),
    (changes) => new ConnectionStates(changes)
  )

  get current(): ConnectionState {
    return this.state
  }

  /** The peer of the connection that is in use. */
  get peer(): Peer | undefined {
    return this.connection?.peer
  }

  /** Waits for a connection that is in use. Fails if the state is `Closed`. */
  readonly acquirePeer: Effect.Effect<Peer, AppServerError> = Effect.suspend(() => {
    if (this.state._tag === "Closed") return Effect.fail(this.state.cause)
    return this.connection === undefined
      ? Effect.flatMap(Deferred.await(this.settled), () => this.acquirePeer)
      : Effect.succeed(this.connection.peer)
  })

  /**
   * Uses a connection. Returns the cause if the connection has ended since it was opened: requests that wait would be sent on it
   * again and again.
   */
  use(connection: OpenConnection): AppServerError | undefined {
    const cause = connection.peer.closed()
    if (cause !== undefined) return cause
    this.connection = connection
    this.set({ _tag: "Ready", metadata: connection.metadata }, syncBatch)
    return undefined
  }

  /** The connection has ended, and another one is being opened. */
  restart(cause: AppServerError, batch: ReadBatch): void {
    this.connection = undefined
    if (this.state._tag !== "Closed") this.set({ _tag: "Starting", cause }, batch)
  }

  /** Returns whether the state was another one before. */
  close(cause: AppServerError, batch: ReadBatch): boolean {
    this.connection = undefined
    if (this.state._tag === "Closed") return false
    this.set({ _tag: "Closed", cause }, batch)
    return true
  }

  /** The state now, and each change, up to `Closed`. */
  readonly stream: Stream.Stream<ConnectionState> = Stream.unwrap(
    Effect.suspend(() =>
      Effect.map(
        PubSub.subscribe(this.changes),
        (subscription) =>
          Stream.concat(Stream.sync(() => this.state), Stream.fromSubscription(subscription)).pipe(
            Stream.changesWith((before, after) => before === after),
            Stream.takeUntil(({ _tag }) => _tag === "Closed")
          )
      )
    )
  )

  private set(next: ConnectionState, batch: ReadBatch): void {
    this.state = next
    const { settled } = this
    if (next._tag !== "Starting") this.settled = Deferred.makeUnsafe()
    batch.afterBatch(() => {
      PubSub.publishUnsafe(this.changes, next)
      if (next._tag !== "Starting") Deferred.doneUnsafe(settled, Exit.void)
    })
  }
}
