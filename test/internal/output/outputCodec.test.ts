import { assert, describe, it } from "@effect/vitest"
import * as Arbitrary from "effect/Arbitrary"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as SchemaGetter from "effect/SchemaGetter"
import { makeOutputCodec } from "../../../src/internal/output/outputCodec.ts"
import { schemaOf } from "./schemas.ts"
import { brokenRules } from "./strictRules.ts"

type Any = Schema.Codec<any, any>

const roundTrip = Effect.fnUntraced(function*(schema: Any, value: unknown) {
  const codec = yield* makeOutputCodec(schema)
  assert.deepStrictEqual(brokenRules(codec.jsonSchema), [])
  const text = yield* codec.encode(value)
  const decoded: unknown = yield* codec.decode(text)
  assert.isTrue(Schema.toEquivalence(schema)(decoded, value), `${text} does not decode to what it encodes`)
  return { codec, text }
})

const issues = Effect.fnUntraced(function*(schema: Any, response: unknown) {
  const codec = yield* makeOutputCodec(schema)
  const error = yield* Effect.flip(codec.decode(typeof response === "string" ? response : JSON.stringify(response)))
  return error.message.split("\n")
})

const refusal = (schema: Schema.Constraint) =>
  Effect.map(Effect.flip(makeOutputCodec(schema as Any)), ({ reason }) => {
    if (reason._tag !== "InvalidRequest") return assert.fail(reason._tag)
    assert.strictEqual(reason.method, "turn/start")
    return reason.description
  })

interface Tree {
  readonly label: string
  readonly children: ReadonlyArray<Tree>
}
const Tree: Schema.Codec<Tree> = Schema.Struct({
  label: Schema.String,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree))
}).annotate({ identifier: "Tree" })

class Person extends Schema.Class<Person>("Person")(
  { name: Schema.String, born: Schema.Date },
  { description: "a person" }
) {}

class Offset extends Context.Service<Offset, number>()("Offset") {}

describe("makeOutputCodec", () => {
  it.effect.prop("sends strict JSON Schema of any schema, and decodes what a value encodes to", {
    choices: Schema.Array(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 999 }))).check(
      Schema.isMaxLength(40)
    )
  }, ({ choices }) =>
    Effect.gen(function*() {
      const schema = schemaOf(choices)
      for (const value of yield* Arbitrary.sampleEffect(Arbitrary.schema(schema), { count: 3 })) {
        yield* roundTrip(schema, value)
      }
    }), { arbitrary: { runs: 200 } })

  const nasty: Record<string, readonly [schema: Any, value: unknown]> = {
    "a string": [Schema.String, "x"],
    "null": [Schema.Null, null],
    "an array of tuples": [Schema.Array(Schema.Tuple([Schema.String, Schema.Int])), [["a", 1], ["b", 2]]],
    "a record of records": [Schema.Record(Schema.String, Schema.Record(Schema.String, Schema.Int)), {
      a: { b: 1 },
      c: {}
    }],
    "a record whose key is `__proto__`": [
      Schema.Record(Schema.String, Schema.Int),
      Object.fromEntries([["__proto__", 1], ["toString", 2]])
    ],
    "a tagged union": [
      Schema.Union([Schema.TaggedStruct("A", { a: Schema.Int }), Schema.TaggedStruct("B", { b: Schema.Date })]),
      { _tag: "B", b: new Date(0) }
    ],
    "a union of an array, a record and a scalar": [
      Schema.Union([Schema.Array(Schema.Int), Schema.Record(Schema.String, Schema.Int), Schema.Int]),
      { a: 1 }
    ],
    "literals": [Schema.Literals(["a", "b", 1, true]), true],
    "an enum": [Schema.Enum({ A: "a", B: 2 }), 2],
    "a class": [Person, new Person({ name: "Ada", born: new Date(1) })],
    "a recursive schema": [Tree, { label: "a", children: [{ label: "b", children: [] }] }],
    "an option": [Schema.Option(Schema.Int), Option.some(1)],
    "a map": [Schema.ReadonlyMap(Schema.String, Schema.Int), new Map([["a", 1]])],
    "a duration, a URL and bytes": [
      Schema.Struct({ url: Schema.URL, bytes: Schema.Uint8Array }),
      { url: new URL("https://example.org/"), bytes: new Uint8Array([1, 2]) }
    ],
    "a tuple with an optional element": [Schema.Tuple([Schema.Int, Schema.optionalKey(Schema.String)]), [1]],
    "a tuple with a rest and a tail": [
      Schema.TupleWithRest(Schema.Tuple([Schema.Int]), [Schema.String, Schema.Boolean]),
      [1, "a", "b", true]
    ],
    "a struct with a rest": [
      Schema.StructWithRest(Schema.Struct({ a: Schema.String }), [Schema.Record(Schema.String, Schema.String)]),
      { a: "x", b: "y" }
    ],
    "an empty struct in a field": [Schema.Struct({ a: Schema.Struct({}) }), { a: {} }],
    "an empty tuple": [Schema.Tuple([]), []],
    "a field that can never be there": [
      Schema.Struct({ a: Schema.Int, b: Schema.optionalKey(Schema.Never) }),
      { a: 1 }
    ],
    "a field named `value`": [Schema.Struct({ value: Schema.Int }), { value: 1 }]
  }
  for (const [name, [schema, value]] of Object.entries(nasty)) {
    it.effect(`round-trips ${name}`, () => roundTrip(schema, value))
  }

  it.effect("decodes fields that each object has by inheritance", () =>
    Effect.gen(function*() {
      const codec = yield* makeOutputCodec(Schema.Struct({
        toString: Schema.optionalKey(Schema.String),
        constructor: Schema.optionalKey(Schema.String),
        ["__proto__"]: Schema.optionalKey(Schema.Date)
      }))
      assert.deepStrictEqual(brokenRules(codec.jsonSchema), [])
      const none = yield* codec.decode(`{"toString":null,"constructor":null,"__proto__":null}`)
      assert.deepStrictEqual(Object.keys(none), [])
      const all = yield* codec.decode(`{"toString":"a","constructor":"b","__proto__":"1970-01-01T00:00:00.000Z"}`)
      assert.deepStrictEqual(Object.keys(all).sort(), ["__proto__", "constructor", "toString"])
      const open = yield* makeOutputCodec(
        Schema.StructWithRest(Schema.Struct({ toString: Schema.optionalKey(Schema.String) }), [
          Schema.Record(Schema.String, Schema.String)
        ])
      )
      assert.deepStrictEqual(Object.keys(yield* open.decode(`{"value":[{"0":"a","1":"b"}]}`)), ["a"])
    }))

  it.effect("wraps a root that is not a struct, and only that", () =>
    Effect.gen(function*() {
      const wrapped = yield* makeOutputCodec(Schema.Array(Schema.Int))
      assert.deepStrictEqual(Object.keys(wrapped.jsonSchema.properties as object), ["value"])
      assert.deepStrictEqual(yield* wrapped.decode(`{"value":[1]}`), [1])
      const struct = yield* makeOutputCodec(Schema.Struct({ a: Schema.Int }))
      assert.deepStrictEqual(Object.keys(struct.jsonSchema.properties as object), ["a"])
    }))

  it.effect("sends bounds, titles and descriptions, also those of decoded values", () =>
    Effect.gen(function*() {
      const { jsonSchema } = yield* makeOutputCodec(
        Schema.Struct({
          score: Schema.Number.check(Schema.isBetween({ minimum: 0, maximum: 1 })).annotate({
            description: "the score"
          }),
          due: Schema.Date.annotate({ title: "Due", description: "when it is due" }),
          who: Person,
          first: Schema.NonEmptyArray(Schema.String)
        })
      )
      const { due, first, score, who } = jsonSchema.properties as Record<string, Record<string, unknown>>
      assert.strictEqual(score!.type, "number")
      assert.deepStrictEqual([score!.minimum, score!.maximum, score!.description], [0, 1, "the score"])
      assert.strictEqual(due!.title, "Due")
      assert.include(due!.description, "when it is due")
      assert.strictEqual(who!.description, "a person")
      assert.deepStrictEqual([first!.type, first!.minItems], ["array", 1])
      assert.isUndefined(jsonSchema.$defs)
    }))

  it.effect("sends each definition once, and keeps the description of a field that refers to one", () =>
    Effect.gen(function*() {
      const Part = Schema.Struct({ n: Schema.Int }).annotate({ identifier: "Part" })
      const Twin = Schema.Struct({ n: Schema.Int }).annotate({ identifier: "Twin" })
      const { jsonSchema } = yield* makeOutputCodec(Schema.Struct({
        a: Part.pipe(Schema.annotateKey({ description: "the first" })),
        b: Part,
        c: Twin,
        d: Schema.Array(Twin)
      }))
      assert.deepStrictEqual(brokenRules(jsonSchema), [])
      assert.strictEqual(Object.keys(jsonSchema.$defs as object).length, 1)
      assert.include(JSON.stringify(jsonSchema), "the first")
      const tree = yield* makeOutputCodec(Tree)
      assert.strictEqual(Object.keys(tree.jsonSchema.$defs as object).length, 1)
    }))

  it.effect("describes a pattern with lookaround, which strict mode refuses", () =>
    Effect.gen(function*() {
      const pattern = "^(?!x)"
      const schema = Schema.String.check(
        Schema.makeFilter((text: string) => !text.startsWith("x"), { toJsonSchema: () => ({ pattern }) })
      )
      const { jsonSchema } = yield* makeOutputCodec(schema)
      assert.deepStrictEqual(brokenRules(jsonSchema), [])
      assert.include(JSON.stringify(jsonSchema), pattern)
    }))

  it.effect("reports every issue at its path in the schema", () =>
    Effect.gen(function*() {
      const Item = Schema.Struct({
        n: Schema.Int,
        due: Schema.Date,
        pair: Schema.Tuple([Schema.Int, Schema.Int]),
        by: Schema.Record(Schema.String, Schema.Int)
      })
      const bad = { n: "x", due: "no", pair: { 0: 1, 1: "y" }, by: [{ 0: "k", 1: "z" }] }
      assert.deepStrictEqual(
        yield* issues(Item, bad),
        [
          "`n`: Expected number",
          "`pair[1]`: Expected number",
          "`by.k`: Expected number",
          "`due`: Expected a valid date"
        ].map((line) => line.replace("a valid date", "a valid Date"))
      )
      assert.deepStrictEqual(yield* issues(Schema.Array(Schema.Int), { value: [1, "x", "y"] }), [
        "`[1]`: Expected number",
        "`[2]`: Expected number"
      ])
      assert.deepStrictEqual(yield* issues(Schema.String, { value: 1 }), ["Expected string"])
      assert.deepStrictEqual(yield* issues(Schema.Struct({ a: Schema.Number }), { a: "Infinity" }), [
        "`a`: Expected number"
      ])
    }))

  it.effect("reports text that is not JSON", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* issues(Schema.String, `{"value":`), ["The response is not JSON"])
      assert.deepStrictEqual(yield* issues(Schema.String, " "), ["The response is empty"])
      assert.isNotEmpty(yield* issues(Schema.String, "null"))
      assert.isNotEmpty(yield* issues(Schema.Struct({ a: Schema.Int }), "[]"))
    }))

  it.effect("reports a response that is nested too deeply", () =>
    Effect.gen(function*() {
      const codec = yield* makeOutputCodec(Tree)
      const nested = (levels: number) =>
        `{"label":"","children":[`.repeat(levels) + `{"label":"","children":[]}` + "]}".repeat(levels)
      yield* codec.decode(nested(90))
      assert.deepStrictEqual(yield* issues(Tree, nested(20_000)), ["The response is nested deeper than `200` levels"])
      codec.fromPartial(JSON.parse(nested(5000)))
    }))

  it.effect("decodes plain JSON of a provider without strict mode", () =>
    Effect.gen(function*() {
      const codec = yield* makeOutputCodec(Schema.Struct({
        pair: Schema.Tuple([Schema.Int, Schema.String]),
        by: Schema.Record(Schema.String, Schema.Int),
        note: Schema.optionalKey(Schema.String)
      }))
      const value = { pair: [1, "x"], by: { k: 1 } }
      assert.deepStrictEqual<unknown>(yield* codec.decode(JSON.stringify(value)), value)
    }))

  it.effect("decodes with the services of the schema", () =>
    Effect.gen(function*() {
      const schema = Schema.Int.pipe(Schema.decodeTo(Schema.Int, {
        decode: SchemaGetter.transformEffect((n: number) => Effect.map(Offset, (offset) => n + offset)),
        encode: SchemaGetter.transform((n: number) => n)
      }))
      const codec = yield* makeOutputCodec(schema)
      assert.strictEqual(yield* Effect.provideService(codec.decode(`{"value":1}`), Offset, 2), 3)
    }))

  it.effect("converts partial JSON to that of the schema", () =>
    Effect.gen(function*() {
      const { fromPartial } = yield* makeOutputCodec(Schema.Array(Schema.Struct({
        pair: Schema.optionalKey(Schema.Tuple([Schema.Int, Schema.String])),
        by: Schema.Record(Schema.String, Schema.Int)
      })))
      assert.isUndefined(fromPartial(undefined))
      assert.isUndefined(fromPartial({}))
      assert.deepStrictEqual(fromPartial({ value: [] }), [])
      assert.deepStrictEqual(fromPartial({ value: [{ pair: { 0: 1 } }] }), [{ pair: [1] }])
      assert.deepStrictEqual(fromPartial({ value: [{ pair: null, by: [{ 0: "a", 1: 1 }, { 0: "b" }] }] }), [
        { by: { a: 1 } }
      ])
      for (const odd of [null, 1, [], { value: { a: 1 } }, { value: [1, { pair: 3, by: "x" }] }]) fromPartial(odd)
    }))
})

describe("a schema without strict JSON Schema", () => {
  const deep = (depth: number): Any => depth === 0 ? Schema.String : Schema.Struct({ inner: deep(depth - 1) })

  it.effect("is refused with the path, before anything is sent", () =>
    Effect.gen(function*() {
      assert.strictEqual(
        yield* refusal(Schema.Struct({ a: Schema.Array(Schema.Struct({ b: Schema.Unknown })) })),
        "`a[].b` of `output` has no strict JSON Schema: it accepts any " +
          "JSON. Give it a schema with fields, or use `Schema.fromJsonString(Schema.Unknown)`"
      )
      assert.include(yield* refusal(Schema.Any), "`output` has no strict JSON Schema")
      assert.include(yield* refusal(Schema.Never), "no value satisfies it")
      assert.include(yield* refusal(Schema.Struct({ f: Schema.instanceOf(Function) })), "`f` of `output`")
      assert.include(yield* refusal(Schema.Tuple([Schema.Int, Schema.Json])), "`[1]` of `output`")
    }))

  it.effect("is refused beyond the limits of strict mode, and accepted at them", () =>
    Effect.gen(function*() {
      yield* makeOutputCodec(deep(10))
      assert.include(yield* refusal(deep(11)), "levels deep, and `10` are allowed")
      const wide = (count: number) =>
        Schema.Struct(Object.fromEntries(Array.from({ length: count }, (_, index) => [`f${index}`, Schema.Int])))
      yield* makeOutputCodec(wide(5000))
      assert.include(yield* refusal(wide(5001)), "it has `5001` fields")
      const literals = (count: number, length: number) =>
        Schema.Literals(Array.from({ length: count }, (_, index) => `${index}`.padStart(length, "x")))
      yield* makeOutputCodec(literals(1000, 10))
      assert.include(yield* refusal(literals(1001, 10)), "it has `1001` literals")
      assert.include(yield* refusal(literals(251, 100)), "its `251` literals have `25100` characters")
      assert.include(yield* refusal(Schema.Struct({ ["x".repeat(120_001)]: Schema.Int })), "`120001` characters")
    }))

  it.effect("fails and does not die", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(
        makeOutputCodec(Schema.Struct({ [Symbol.for("s")]: Schema.Int }) as unknown as Any)
      )
      assert.isTrue(Exit.isSuccess(exit) || !exit.cause.reasons.some(({ _tag }) => _tag === "Die"))
    }))
})
