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
 * An image by URL. Use a `data:` URL; the server deprecates remote ones. A path is refused with `InvalidRequest`: for a file there is
 * {@link localImage}.
 *
 * @category constructors
 * @since 0.1.0
 */
export const image = (url: string): Item => ({ type: "image", url })

/**
 * An image file on the machine of the app-server.
 *
 * **Details**
 *
 * A relative path is resolved against the working directory of the thread. A path that is not that of a file fails with
 * `InvalidRequest`, which names it, before the turn is started.
 *
 * **Gotchas**
 *
 * The server reads the file when it starts the turn. Where it may not read the file, or cannot decode it, it tells the model so, and
 * the turn goes on.
 *
 * @category constructors
 * @since 0.1.0
 */
export const localImage = (path: string): Item => ({ type: "localImage", path })

/**
 * A skill: its name, and the path of its `SKILL.md`, which is checked as the path of {@link localImage} is.
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

/** What is wrong with the URL of an image. Other schemes are left to the server. */
const imageIssue = (items: ReadonlyArray<Item>): string | undefined => {
  const index = items.findIndex((item) =>
    Predicate.isObject(item) && item.type === "image" && "url" in item && Predicate.isString(item.url) &&
    !/^(?!file:)[a-z][a-z0-9+.-]+:/i.test(item.url)
  )
  return index < 0
    ? undefined
    : `\`input[${index}].url\` is not a URL that the model can open; use Input.localImage for a file`
}

/**
 * The items of an input that a request may carry. More than {@link maxChars} characters of text, and an image whose URL is the path of a
 * file, fail with `InvalidRequest`; nothing is sent. The files of an input are checked when it is sent.
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
  const issue = chars <= maxChars
    ? imageIssue(items)
    : `the input has ${chars} characters of text, ${maxChars} are allowed`
  return issue === undefined
    ? Effect.succeed(items)
    : Effect.fail(appServerError(new InvalidRequest({ method, description: issue })))
}
