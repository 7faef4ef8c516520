/** The schema of an object that the model generates, as that of typed output. */
import * as AiError from "effect/ai/AiError"
import type * as LanguageModel from "effect/ai/LanguageModel"
import { toCodecOpenAI } from "effect/ai/OpenAiStructuredOutput"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import * as SchemaIssue from "effect/SchemaIssue"
import * as SchemaTransformation from "effect/SchemaTransformation"
import { loadOutputCodec } from "../output/loadOutputCodec.ts"
import type { ToOutputSchema } from "./respond.ts"

/** Loads the codec of typed output, which the root entry point imports dynamically, too. */
export const loadOutputSchema = Effect.map(loadOutputCodec, ({ compileOutput }) => {
  const compile = <A, E, RD, RE>(schema: Schema.ConstraintCodec<A, E, RD, RE>) =>
    Result.mapError(compileOutput(schema, toCodecOpenAI), (refusal) => refusal.describe("schema"))

  /** Fails before a turn starts if strict JSON Schema cannot express the schema. */
  const toOutputSchema: ToOutputSchema = (format) =>
    format.type === "text"
      ? Effect.undefined
      : Effect.fromResult(compile(format.schema as Schema.Codec<unknown>)).pipe(
        Effect.mapBoth({
          onFailure: (description) => new AiError.UnsupportedSchemaError({ description }),
          onSuccess: ({ jsonSchema }) => jsonSchema
        })
      )

  /** Decodes the JSON of a response as typed output, also where the root is not an object. */
  const codecTransformer: LanguageModel.CodecTransformer = (schema) => {
    const output = Result.getOrThrowWith(compile(schema), (description) => new Error(description))
    const codec = Schema.Unknown.pipe(Schema.decodeTo(
      Schema.toType(schema),
      SchemaTransformation.transformEffect({
        decode: (json) =>
          Effect.mapError(output.decodeJson(json), ({ message }) => new SchemaIssue.InvalidValue({ message })),
        encode: (value) =>
          output.encode(value).pipe(
            Effect.map((text): unknown => JSON.parse(text)),
            Effect.mapError(({ issue }) => issue)
          )
      })
    ))
    return { codec, jsonSchema: output.jsonSchema }
  }

  return { codecTransformer, toOutputSchema }
})
