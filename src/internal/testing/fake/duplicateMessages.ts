import * as Context from "effect/Context"

/** Whether the fake sends the messages of the current fiber twice. */
export const DuplicateMessages: Context.Reference<boolean> = Context.Reference<boolean>(
  "effect-codex/testing/DuplicateMessages",
  { defaultValue: () => false }
)
