/** What the compiler infers for typed output. The functions are compiled and not run. */
import { assert, describe, expectTypeOf, it } from "@effect/vitest"
import { type ApprovalMode, Approvals, type AppServerError, type Thread, Turn } from "effect-codex"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"

class Currency extends Context.Service<Currency, string>()("Currency") {}
class Policy extends Context.Service<Policy, boolean>()("Policy") {}

const Amount = Schema.Int.pipe(
  Schema.decodeTo(Schema.String, {
    decode: SchemaGetter.transformEffect((cents) => Effect.map(Currency, (currency) => `${cents} ${currency}`)),
    encode: SchemaGetter.transform((text) => Number.parseInt(text))
  })
)

const Bug = Schema.Struct({
  title: Schema.String,
  kind: Schema.Literals(["crash", "leak"]),
  line: Schema.optional(Schema.Int),
  found: Schema.Date,
  tags: Schema.Array(Schema.Struct({ name: Schema.String }))
})

declare const thread: Thread.Thread

const approvals = { command: () => Effect.as(Policy, Approvals.accept) }

type RunError = ApprovalMode.SandboxConflictError | Turn.TurnFailed | AppServerError.AppServerError
type OutputError = Turn.OutputInvalid | Turn.TurnFailed | AppServerError.AppServerError

describe("Types of typed output", () => {
  it("have the output, its error and its services only if a schema is passed", () => {
    const typed = () => thread.run("go", { output: Bug })
    expectTypeOf(typed).returns.toEqualTypeOf<
      Effect.Effect<Turn.TypedTurnResult<typeof Bug.Type>, RunError | Turn.OutputInvalid>
    >()
    const services = () => thread.run("go", { output: Amount, repairs: 2, approvals })
    expectTypeOf(services).returns.toEqualTypeOf<
      Effect.Effect<Turn.TypedTurnResult<string>, RunError | Turn.OutputInvalid, Currency | Policy>
    >()
    const untyped = () => thread.run("go", { effort: "low", approvals })
    expectTypeOf(untyped).returns.toEqualTypeOf<Effect.Effect<Turn.TurnResult, RunError, Policy>>()
    const plain = () => thread.run("go")
    expectTypeOf(plain).returns.toEqualTypeOf<Effect.Effect<Turn.TurnResult, RunError>>()
    expectTypeOf<Turn.TurnResult>().not.toHaveProperty("output")
    expectTypeOf<Turn.Turn>().not.toHaveProperty("output")
    expectTypeOf<Turn.Turn>().not.toHaveProperty("partialOutput")
  })

  it("have the output on the handle of a turn", () => {
    const typed = () => thread.turn("go", { output: Amount, approvals })
    expectTypeOf(typed).returns.toEqualTypeOf<
      Effect.Effect<
        Turn.TypedTurn<string, number, Currency>,
        ApprovalMode.SandboxConflictError | AppServerError.AppServerError,
        Scope.Scope | Policy
      >
    >()
    expectTypeOf<Turn.TypedTurn<string, number, Currency>["output"]>().toEqualTypeOf<
      Effect.Effect<string, OutputError, Currency>
    >()
    const untyped = () => thread.turn("go", { effort: "low" })
    expectTypeOf(untyped).returns.toEqualTypeOf<
      Effect.Effect<
        Turn.Turn,
        ApprovalMode.SandboxConflictError | AppServerError.AppServerError,
        Scope.Scope
      >
    >()
  })

  it("have fields that may be missing while the output arrives", () => {
    expectTypeOf<Turn.PartialOutput<typeof Bug.Encoded>>().toEqualTypeOf<{
      readonly title?: string | undefined
      readonly kind?: string | undefined
      readonly line?: number | null | undefined
      readonly found?: unknown
      readonly tags?: ReadonlyArray<{ readonly name?: string | undefined }> | undefined
    }>()
    expectTypeOf<Turn.PartialOutput<boolean | bigint | null>>().toEqualTypeOf<boolean | string | null>()
    expectTypeOf<Turn.PartialOutput<unknown>>().toEqualTypeOf<unknown>()
    const partial = (turn: Effect.Success<ReturnType<typeof start>>) => turn.partialOutput
    const start = () => thread.turn("go", { output: Schema.Array(Schema.String) })
    expectTypeOf(partial).returns.toExtend<Stream.Stream<ReadonlyArray<string>, OutputError>>()
  })

  it("pass through helpers that are generic in the schema, or in its type", () => {
    const bySchema = <S extends Schema.Top>(schema: S) =>
      Effect.map(thread.run("go", { output: schema }), ({ output }) => output)
    const byType = <A>(schema: Schema.Codec<A, unknown>) =>
      Effect.map(thread.run("go", { output: schema }), ({ output }) => output)
    const byTurn = <S extends Schema.Top>(schema: S) =>
      Effect.scoped(Effect.flatMap(thread.turn("go", { output: schema }), ({ output }) => output))
    const amount = () => bySchema(Amount)
    expectTypeOf(amount).returns.toEqualTypeOf<Effect.Effect<string, RunError | Turn.OutputInvalid, Currency>>()
    const bug = () => byType(Schema.Array(Schema.Date))
    expectTypeOf(bug).returns.toEqualTypeOf<Effect.Effect<ReadonlyArray<Date>, RunError | Turn.OutputInvalid>>()
    const turn = () => byTurn(Amount)
    expectTypeOf(turn).returns.toEqualTypeOf<Effect.Effect<string, RunError | Turn.OutputInvalid, Currency>>()
  })

  it("infer the parameters of handlers beside a schema", () => {
    const run = () =>
      thread.run("go", {
        output: Bug,
        approvals: { command: ({ command }) => Effect.succeed(command === "ls" ? Approvals.accept : Approvals.decline) }
      })
    expectTypeOf(run).returns.toEqualTypeOf<
      Effect.Effect<Turn.TypedTurnResult<typeof Bug.Type>, RunError | Turn.OutputInvalid>
    >()
  })

  it("reject both kinds of schema together, and misspelled options", () => {
    const both = { output: Bug, outputSchema: { type: "object" } }
    const calls = [
      // @ts-expect-error: both
      () => thread.run("go", { output: Bug, outputSchema: { type: "object" } }),
      // @ts-expect-error: both, in a variable
      () => thread.run("go", both),
      // @ts-expect-error: both
      () => thread.turn("go", { output: Bug, outputSchema: {} }),
      // @ts-expect-error: a JSON Schema
      () => thread.run("go", { output: { type: "object" } }),
      // @ts-expect-error: repairs without output
      () => thread.run("go", { repairs: 1 }),
      // @ts-expect-error: a stream of events has no output
      () => thread.stream("go", { output: Bug }),
      // @ts-expect-error: misspelled
      () => thread.run("go", { output: Bug, efort: "low" }),
      // @ts-expect-error: misspelled
      () => thread.run("go", { efort: "low" }),
      // @ts-expect-error: misspelled in a handler
      () => thread.run("go", { output: Bug, approvals: { comand: () => Effect.succeed(Approvals.accept) } })
    ]
    assert.lengthOf(calls, 9)
  })

  it("keep programs that pass options of an unknown type", () => {
    const never = (options: never) => thread.run("go", options)
    expectTypeOf(never).returns.toExtend<Effect.Effect<Turn.TurnResult, unknown>>()
    // oxlint-disable-next-line typescript/no-explicit-any
    const any = (options: any) => thread.run("go", options)
    expectTypeOf(any).returns.toExtend<Effect.Effect<Turn.TurnResult, unknown>>()
    const optional = (options: Thread.TurnOptions | undefined) => thread.run("go", options)
    expectTypeOf(optional).returns.toEqualTypeOf<Effect.Effect<Turn.TurnResult, RunError>>()
    const deadline = (turn: Turn.TypedTurn<string>) => Turn.withDeadline(turn, "1 second")
    expectTypeOf(deadline).returns.toEqualTypeOf<Effect.Effect<Turn.TypedTurn<string>, never, Scope.Scope>>()
    assert.isFunction(deadline)
  })
})
