/**
 * The protocol of `codex app-server`: the type and the schema of each message, with the names that Codex uses.
 *
 * **When to use**
 *
 * Annotate requests, items and events with these types, and decode stored JSON with the schemas.
 *
 * **Details**
 *
 * The protocol is generated from the binary that this package depends on. `clientRequests`, `serverRequests` and
 * `serverNotifications` list the methods; `ClientRequests`, `ServerRequests` and `ServerNotifications` are their types.
 *
 * Messages of the client are strict: enums and unions are closed, and integers are integers.
 *
 * Messages of the server are open, because the server may be newer than this package:
 *
 * - An unknown field passes through. So does an unknown member of an enum, whose type is `"known" | (string & {})`.
 * - An unknown variant of a union passes through as JSON, with the type `UnrecognizedVariant`; `switch` on the tag still narrows to the
 *   known variants. In a union of strings and objects with one key, its type is `UnrecognizedObject`.
 * - A known variant of the wrong shape becomes a `MalformedVariant` or `MalformedObject`, which contains the JSON. One malformed item
 *   therefore does not affect the rest of its message.
 * - A missing field fails to decode only if it is the `id` of a value. Supported servers send all fields, so their types are not optional.
 *   With `allowUnsupportedServer` a time, a flag or a description may be `undefined`.
 * - Any other value of the wrong shape fails to decode.
 *
 * A definition that is both received and sent has two names: `SandboxPolicy` as received, `SandboxPolicyParam` as sent.
 *
 * If `Schema.is(X)(json)` is true, decoding `json` returns `json`. A check is therefore a cheap way to decode.
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { type ServerNotifications, serverNotifications } from "./internal/protocol/generated/methods.ts"
import type { ThreadNotificationMethod, TurnNotificationMethod } from "./internal/protocol/generated/methods.ts"
import type { NotificationSpec } from "./internal/protocol/methodSpec.ts"
import { lazy, type MalformedVariant, tagged, type Unrecognized } from "./internal/protocol/openSchema.ts"

export * from "./internal/protocol/generated/definitions.ts"
export * from "./internal/protocol/generated/methods.ts"
export type { NotificationSpec, RequestSpec } from "./internal/protocol/methodSpec.ts"
export type {
  MalformedObject,
  MalformedVariant,
  Unrecognized,
  UnrecognizedObject,
  UnrecognizedVariant
} from "./internal/protocol/openSchema.ts"

/**
 * A notification with a known method.
 *
 * @category notifications
 * @since 0.1.0
 */
export type Notification<M extends keyof ServerNotifications = keyof ServerNotifications> = {
  readonly [K in M]: {
    readonly method: K
    readonly params: ServerNotifications[K]
    /** Unix time in milliseconds at which the server emitted the notification. */
    readonly emittedAtMs?: number
  }
}[M]

/**
 * A notification with a method that this version of the protocol does not know.
 *
 * @category notifications
 * @since 0.1.0
 */
export interface UnrecognizedNotification {
  readonly method: Unrecognized
  readonly params?: unknown
  /** Unix time in milliseconds at which the server emitted the notification. */
  readonly emittedAtMs?: number
}

/** Makes the schema of the notifications of some scopes. The compiler cannot infer `T` from the table. */
const notifications = <T>(...scopes: ReadonlyArray<NotificationSpec<unknown>["scope"]>): Schema.Codec<T> =>
  lazy(() =>
    tagged(
      "method",
      Object.entries<NotificationSpec<unknown>>(serverNotifications)
        .filter(([, spec]) => scopes.includes(spec.scope))
        .map(([method, spec]) => ({
          method: Schema.Literal(method),
          params: spec.params,
          emittedAtMs: Schema.optionalKey(Schema.Number)
        }))
    ) as Schema.Codec<T>
  )

/**
 * A notification of the server. `Extract<ServerNotification, { method: M }>` is the notification of one method.
 *
 * @category notifications
 * @since 0.1.0
 */
export type ServerNotification = Notification | UnrecognizedNotification | MalformedVariant<"method">

/**
 * The schema of {@link ServerNotification}.
 *
 * @category notifications
 * @since 0.1.0
 */
export const ServerNotification: Schema.Codec<ServerNotification> = notifications("global", "thread", "turn")

/**
 * A notification about a thread, its turns included.
 *
 * @category notifications
 * @since 0.1.0
 */
export type ThreadNotification =
  | Notification<ThreadNotificationMethod>
  | UnrecognizedNotification
  | MalformedVariant<"method">

/**
 * The schema of {@link ThreadNotification}.
 *
 * @category notifications
 * @since 0.1.0
 */
export const ThreadNotification: Schema.Codec<ThreadNotification> = notifications("thread", "turn")

/**
 * A notification about a turn.
 *
 * @category notifications
 * @since 0.1.0
 */
export type TurnNotification =
  | Notification<TurnNotificationMethod>
  | UnrecognizedNotification
  | MalformedVariant<"method">

/**
 * The schema of {@link TurnNotification}.
 *
 * @category notifications
 * @since 0.1.0
 */
export const TurnNotification: Schema.Codec<TurnNotification> = notifications("turn")
