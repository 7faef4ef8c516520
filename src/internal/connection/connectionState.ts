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
 * The state of a connection: being opened (again, after `cause`), in use, or ended without a restart.
 *
 * @category models
 * @since 0.1.0
 */
export type ConnectionState =
  | { readonly _tag: "Starting"; readonly cause: AppServerError | undefined }
  | { readonly _tag: "Ready"; readonly metadata: Metadata }
  | { readonly _tag: "Closed"; readonly cause: AppServerError }

/** Stores the state. It is a field and not a `SubscriptionRef`, because the reader changes it within a read batch. */
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
   * Makes a connection the current one. Returns the cause instead if the connection has ended: waiting requests would retry on it in a
   * loop.
   */
  use(connection: OpenConnection): AppServerError | undefined {
    const cause = connection.peer.closed()
    if (cause !== undefined) return cause
    this.connection = connection
    this.set({ _tag: "Ready", metadata: connection.metadata }, syncBatch)
    return undefined
  }

  /** Changes the state when the connection has ended and another one is being opened. */
  restart(cause: AppServerError, batch: ReadBatch): void {
    this.connection = undefined
    if (this.state._tag !== "Closed") this.set({ _tag: "Starting", cause }, batch)
  }

  /** Changes the state when the connection has ended and stays ended. */
  close(cause: AppServerError, batch: ReadBatch): void {
    this.connection = undefined
    if (this.state._tag !== "Closed") this.set({ _tag: "Closed", cause }, batch)
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
