/**
 * What a turn is given: a string, one item, or several.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { type AppServerError, InvalidRequest, make as appServerError } from "./AppServerError.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * One piece of input, as the protocol has it.
 *
 * @category models
 * @since 0.1.0
 */
export type Item = Protocol.UserInputParam

/**
 * The input of a turn. A string is short for one text item.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = string | Item | ReadonlyArray<Item>

/**
 * A text.
 *
 * @category constructors
 * @since 0.1.0
 */
export const text = (text: string): Item => ({ type: "text", text })

/**
 * An image by URL. Use a `data:` URL; the server deprecates remote ones.
 *
 * @category constructors
 * @since 0.1.0
 */
export const image = (url: string): Item => ({ type: "image", url })

/**
 * An image file on the app-server's machine. A file that is missing is no error: the model is told of it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const localImage = (path: string): Item => ({ type: "localImage", path })

/**
 * A skill: its name, and the path of its `SKILL.md`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const skill = (name: string, path: string): Item => ({ type: "skill", name, path })

/**
 * A mention, as of an app (`app://…`) or a plugin (`plugin://…`), by name and path.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mention = (name: string, path: string): Item => ({ type: "mention", name, path })

/**
 * The items of an input.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toItems = (input: Input): ReadonlyArray<Item> => {
  if (typeof input === "string") return [text(input)]
  return Array.isArray(input) ? input : [input as Item]
}

/**
 * How many characters (Unicode code points) of text a turn may be given. The server refuses more.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxChars = 1_048_576

const countChars = (text: string): number => {
  // A code point has at most two UTF-16 units, so a short text needs no counting.
  if (text.length <= maxChars) return text.length
  let count = 0
  for (const _ of text) count++
  return count
}

/**
 * The items of an input that a request may carry. More than {@link maxChars} characters of text fail with
 * `InvalidRequest`; nothing is sent.
 *
 * @category conversions
 * @since 0.1.0
 */
export const validate = (method: string, input: Input): Effect.Effect<ReadonlyArray<Item>, AppServerError> => {
  const items = toItems(input)
  const chars = items.reduce(
    (sum, item) =>
      Predicate.hasProperty(item, "text") && Predicate.isString(item.text) ? sum + countChars(item.text) : sum,
    0
  )
  return chars <= maxChars ? Effect.succeed(items) : Effect.fail(appServerError(
    new InvalidRequest({ method, description: `the input has ${chars} characters of text, ${maxChars} are allowed` })
  ))
}
