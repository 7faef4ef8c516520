/** A family of schemas: each list of numbers stands for one, and shorter lists for smaller ones. */
import * as Schema from "effect/Schema"

type Any = Schema.Codec<any, any>

const leaves: ReadonlyArray<Any> = [
  Schema.String,
  Schema.NonEmptyString,
  Schema.Int,
  Schema.Number.check(Schema.isBetween({ minimum: -10, maximum: 10 })),
  Schema.Finite.annotate({ description: "a number", title: "Number" }),
  Schema.Boolean,
  Schema.Literal("one"),
  Schema.Literals(["a", "b", 3, true]),
  Schema.Date,
  Schema.BigInt,
  Schema.NumberFromString.check(Schema.isFinite()),
  Schema.String.check(Schema.isTrimmed(), Schema.isMaxLength(5)),
  Schema.String.pipe(Schema.brand("Id")),
  Schema.TemplateLiteral(["v", Schema.Int]),
  Schema.String.check(Schema.isUUID())
]

interface Tree {
  readonly label: string
  readonly children: ReadonlyArray<Tree>
}

const Tree: Schema.Codec<Tree> = Schema.Struct({
  label: Schema.String,
  children: Schema.Array(Schema.suspend((): Schema.Codec<Tree> => Tree)).check(Schema.isMaxLength(2))
}).annotate({ identifier: "Tree" })

class Person extends Schema.Class<Person>("Person")({ name: Schema.String, age: Schema.optionalKey(Schema.Int) }) {}

const names = ["a", "b", "with space", "e/~", "value", "0"]

export const schemaOf = (choices: ReadonlyArray<number>): Any => {
  let index = 0
  const next = (limit: number): number => (choices[index++] ?? 0) % limit
  const build = (depth: number): Any => {
    switch (depth === 0 ? 0 : next(12)) {
      case 1:
        return Schema.Array(build(depth - 1)).check(Schema.isMaxLength(3))
      case 2:
        return Schema.NonEmptyArray(build(depth - 1))
      case 3:
        return Schema.Tuple([build(depth - 1), build(depth - 1)])
      case 4:
        return Schema.TupleWithRest(Schema.Tuple([build(depth - 1)]), [build(depth - 1)])
      case 5:
        return Schema.Record(Schema.String, build(depth - 1))
      case 6:
        return Schema.NullOr(build(depth - 1))
      case 7:
        return Schema.Union([
          Schema.TaggedStruct("A", { value: build(depth - 1) }),
          Schema.TaggedStruct("B", { value: build(depth - 1), b: Schema.optionalKey(Schema.String) })
        ])
      case 8:
        return Tree
      case 9:
        return Person
      case 10:
      case 11:
        return Schema.Struct(Object.fromEntries(
          names.slice(0, 1 + next(names.length)).map((name) => [
            name,
            next(3) === 0 ? Schema.optionalKey(leaves[next(leaves.length)]!) : build(depth - 1)
          ])
        )).annotate(next(2) === 0 ? {} : { identifier: "Part", description: "a part" })
      default:
        return leaves[next(leaves.length)]!
    }
  }
  return build(3)
}
