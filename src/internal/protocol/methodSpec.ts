/** The entries of the method tables of the protocol. */
import type * as Schema from "effect/Schema"

/**
 * How a request of one method is encoded, and its response decoded. The schemas are built when they are first used.
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
  /** The params of a request without params: the server rejects many methods without an object. */
  readonly defaultParams: { readonly [key: string]: never } | undefined
}

/**
 * What a notification is about, and how its params are decoded.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotificationSpec<Params> {
  readonly params: Schema.Codec<Params>
  /** `"turn"` if the params can name a thread and a turn, `"thread"` if only a thread, else `"global"`. */
  readonly scope: "turn" | "thread" | "global"
  /** The path of the thread id in the params. Some notifications may leave it out. */
  readonly threadId: "threadId" | "thread.id" | undefined
  /** The path of the turn id in the params. Some notifications may leave it out. */
  readonly turnId: "turnId" | "turn.id" | undefined
  /** Whether the server sends it only to clients with the `experimentalApi` capability. */
  readonly experimental: boolean
}
