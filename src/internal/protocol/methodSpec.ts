/** What the method tables of the protocol say about one method. */
import type * as Schema from "effect/Schema"

/**
 * How to send a request of one method, and how to read its answer. The schemas are built when they are first used.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequestSpec<Params, Result> {
  /** `undefined` for a method without params. */
  readonly params: Schema.Codec<Exclude<Params, undefined>> | undefined
  readonly result: Schema.Codec<Result>
  /** Whether the method needs the `experimentalApi` capability. */
  readonly experimental: boolean
  /** What to send when the caller gives no params: many methods are rejected without params, be they empty. */
  readonly defaultParams: { readonly [key: string]: never } | undefined
}

/**
 * Whom a notification is about, and how to read its params.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotificationSpec<Params> {
  readonly params: Schema.Codec<Params>
  /** `"turn"` if the params can name a thread and a turn, `"thread"` if only a thread, else `"global"`. */
  readonly scope: "turn" | "thread" | "global"
  /** Where in the params the id of the thread is. Some notifications leave it out at times. */
  readonly threadId: "threadId" | "thread.id" | undefined
  /** Where in the params the id of the turn is. Some notifications leave it out at times. */
  readonly turnId: "turnId" | "turn.id" | undefined
  /** Whether the server sends it only to clients with the `experimentalApi` capability. */
  readonly experimental: boolean
}
