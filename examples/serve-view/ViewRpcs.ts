/** What the page and the server say to each other. Both import this module. */
import { ThreadView } from "effect-codex"
import * as Rpc from "effect/rpc/Rpc"
import * as RpcGroup from "effect/rpc/RpcGroup"
import * as Schema from "effect/Schema"

/** The turns and the items that changed since the last update, or the whole thread. */
export const Update = Schema.Struct({ isWhole: Schema.Boolean, thread: ThreadView.ThreadView })

export type Update = typeof Update.Type

export class PageError extends Schema.TaggedError<PageError>()("PageError", { message: Schema.String }) {}

export const ViewRpcs = RpcGroup.make(
  /** The whole thread, and then each change. */
  Rpc.make("Watch", { success: Update, error: PageError, stream: true }),
  /** Starts a turn, or adds the prompt to the running one. */
  Rpc.make("Start", { payload: { prompt: Schema.NonEmptyString }, error: PageError }),
  /** Interrupts a turn, if it is still running. */
  Rpc.make("Stop", { payload: { turnId: Schema.String }, error: PageError }),
  /** Decides about a command or a file change. */
  Rpc.make("Decide", { payload: { approvalId: Schema.String, decision: Schema.Literals(["accept", "decline"]) } })
)
