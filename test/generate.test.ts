import { assert, describe, it } from "@effect/vitest"
import { readMethods } from "../scripts/generate/methods.ts"
import { parse } from "../scripts/generate/parse.ts"
import { readProtocol } from "../scripts/generate/protocol.ts"
import type { Definitions, JsonSchema } from "../scripts/generate/schema.ts"

describe("Generator", () => {
  it.each<[string, JsonSchema & Record<string, unknown>, string]>([
    ["an unknown keyword", { type: "string", pattern: "^a" }, "X: unexpected pattern"],
    ["an unknown type", { type: "date" }, "X: type \"date\""],
    ["several types", { type: ["string", "integer"] }, "X: type [\"string\",\"integer\"]"],
    ["an unknown format of a number", { type: "number", format: "decimal" }, "X: number of format decimal"],
    ["an unknown format of an integer", { type: "integer", format: "bigint" }, "X: integer of format bigint"],
    ["a minimum length above 1", { type: "string", minLength: 2 }, "X: minLength 2"],
    ["an enum of numbers", { type: "integer", enum: ["1"] }, "X: enum of \"integer\""],
    ["an intersection", { allOf: [{ type: "string" }, { minLength: 1 }] }, "X: allOf of several schemas"],
    [
      "properties next to additional ones",
      { type: "object", properties: {}, additionalProperties: { type: "string" } },
      "X: properties and additionalProperties"
    ],
    [
      "a variant with the tag of malformed variants",
      {
        oneOf: [{ type: "object", required: ["type"], properties: { type: { type: "string", enum: ["malformed"] } } }]
      },
      "X: a variant has the tag of malformed variants"
    ]
  ])("stops at %s", (_, schema, message) => {
    assert.throws(() => parse("X", schema, undefined), message)
  })

  it("marks fields that the stable schema lacks as experimental", () => {
    const field = { type: "string" }
    const type = parse("X", { type: "object", properties: { a: field, b: field } }, {
      type: "object",
      properties: { a: field }
    })
    assert.deepStrictEqual(type._tag === "Object" ? type.fields.map((field) => [field.name, field.experimental]) : [], [
      ["a", false],
      ["b", true]
    ])
  })

  it("stops at a definition with a name that the generated modules declare", () => {
    const schemas: Definitions = new Map([["ClientRequests", { type: "string" }]])
    assert.throws(() => readProtocol(schemas, schemas), "ClientRequests is a reserved name")
  })

  it("stops at a request without a response", () => {
    const schemas: Definitions = new Map<string, JsonSchema>([
      ["ClientNotification", { oneOf: [] }],
      ["ServerNotification", { properties: { emittedAtMs: {} }, oneOf: [] }],
      ["ServerRequest", { oneOf: [] }],
      ["ClientRequest", { oneOf: [{ type: "object", properties: { method: { enum: ["thread/hum"] } } }] }]
    ])
    assert.throws(() => readMethods(schemas, schemas), "thread/hum has no response; found undefined")
  })
})
