/**
 * The protocol of `codex app-server`: the type and the schema of each message, under the names that Codex gives them.
 *
 * It is generated from the binary that this package depends on. `clientRequests`, `serverRequests` and
 * `serverNotifications` list the methods; `ClientRequests`, `ServerRequests` and `ServerNotifications` are their types.
 *
 * **What the client sends** is strict: closed enums and unions, and integers are integers.
 *
 * **What the server sends** is open, because the server may be newer than this package:
 *
 * - An unknown field is kept, and so is an unknown member of an enum, whose type is `"known" | (string & {})`.
 * - An unknown variant of a union is handed out as the JSON that it is, typed as an `UnrecognizedVariant`; `switch` on
 *   the tag still narrows to the known variants. Among strings and objects with one key it is an `UnrecognizedObject`.
 * - A known variant with another shape becomes a `MalformedVariant` (or a `MalformedObject`) around its JSON, so that one
 *   odd item does not cost the message that it is in.
 * - A time, a flag or a description that is left out costs nothing either, nor does anything but the `id` of a thread, a model or
 *   another value that has one. Supported servers send them all, so their types do not say that they may be `undefined`; with
 *   `allowUnsupportedServer` they may.
 * - Anything else of the wrong shape fails to decode.
 *
 * A definition that travels both ways has two names: `SandboxPolicy` as the server sends it, `SandboxPolicyParam` as the
 * client does.
 *
 * If `Schema.is(X)(json)` then decoding `json` gives `json`, so checking and then using the parsed JSON itself is the
 * cheap way to decode.
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
  readonly emittedAtMs?: number
}

/** The union of the notifications of some scopes, as the compiler cannot follow it from the table. */
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
    ) as Schema.Codec<unknown> as Schema.Codec<T>
  )

/**
 * What the server may notify the client of. `Extract<ServerNotification, { method: M }>` is one of them.
 *
 * @category notifications
 * @since 0.1.0
 */
export type ServerNotification = Notification | UnrecognizedNotification | MalformedVariant<"method">

/**
 * @category notifications
 * @since 0.1.0
 */
export const ServerNotification: Schema.Codec<ServerNotification> = notifications("global", "thread", "turn")

/**
 * What the server may notify the client of about a thread, its turns included.
 *
 * @category notifications
 * @since 0.1.0
 */
export type ThreadNotification =
  | Notification<ThreadNotificationMethod>
  | UnrecognizedNotification
  | MalformedVariant<"method">

/**
 * @category notifications
 * @since 0.1.0
 */
export const ThreadNotification: Schema.Codec<ThreadNotification> = notifications("thread", "turn")

/**
 * What the server may notify the client of about a turn.
 *
 * @category notifications
 * @since 0.1.0
 */
export type TurnNotification =
  | Notification<TurnNotificationMethod>
  | UnrecognizedNotification
  | MalformedVariant<"method">

/**
 * @category notifications
 * @since 0.1.0
 */
export const TurnNotification: Schema.Codec<TurnNotification> = notifications("turn")
