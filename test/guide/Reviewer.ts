import { Context, Effect, Layer, Schema, Stream } from "effect"
import { Codex, type Turn } from "effect-codex"

export class ReviewFailed extends Schema.TaggedError<ReviewFailed>()("ReviewFailed", {
  reason: Schema.String
}) {}

/** Reviews a change with Codex, which may not write files or send requests for approval. */
export class Reviewer extends Context.Service<Reviewer, {
  readonly review: (diff: string) => Effect.Effect<string, ReviewFailed>
  readonly thoughts: (diff: string) => Stream.Stream<string, ReviewFailed>
}>()("my-app/Reviewer") {
  static readonly layer = Layer.effect(
    Reviewer,
    Effect.gen(function*() {
      const codex = yield* Codex.Codex
      const open = codex.startThread({ approvalMode: "deny_all", sandbox: "read-only" })
      const prompt = (diff: string) => `Review this change:\n${diff}`
      const thought = (event: Turn.TurnEvent) =>
        event.method === "item/reasoning/summaryTextDelta" ? [event.params.delta] : []
      return {
        review: (diff) =>
          Effect.flatMap(open, (thread) => thread.run(prompt(diff))).pipe(
            Effect.map(({ finalResponse }) => finalResponse ?? "Nothing to say"),
            Effect.timeout("2 minutes"),
            Effect.catchTag("TurnFailed", ({ codexErrorInfo }) =>
              Effect.fail(new ReviewFailed({ reason: String(codexErrorInfo) }))),
            Effect.catchTag(["AppServerError", "SandboxConflictError", "TimeoutError"], (error) =>
              Effect.fail(new ReviewFailed({ reason: error.message })))
          ),
        thoughts: (diff) =>
          Stream.unwrap(Effect.map(open, (thread) => thread.stream(prompt(diff)))).pipe(
            Stream.flatMap((event) => Stream.fromIterable(thought(event))),
            Stream.mapError((error) => new ReviewFailed({ reason: error.message }))
          )
      }
    })
  )
}
