/**
 * The input of a turn: a string, one item, or several.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import { type AppServerError, InvalidRequest, make as appServerError } from "./AppServerError.ts"
import type * as Protocol from "./Protocol.ts"

/**
 * One item of input: a text, an image, a skill or a mention, as in the protocol.
 *
 * @category models
 * @since 0.1.0
 */
export type Item = Protocol.UserInputParam

/**
 * The input of a turn. A string stands for one text item.
 *
 * @category models
 * @since 0.1.0
 */
export type Input = string | Item | ReadonlyArray<Item>

/**
 * Makes a text item.
 *
 * @category constructors
 * @since 0.1.0
 */
export const text = (text: string): Item => ({ type: "text", text })

/**
 * Makes an image item from a URL.
 *
 * **When to use**
 *
 * Pass a `data:` URL; remote URLs are deprecated by the server. Use {@link localImage} for a file: a turn with a path as URL fails with
 * `InvalidRequest`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const image = (url: string): Item => ({ type: "image", url })

/**
 * Makes an image item from a file on the machine of the app-server.
 *
 * **Details**
 *
 * A relative path is resolved against the working directory of the thread. If there is no file at the path, the turn fails with
 * `InvalidRequest` before it starts, and the error contains the path.
 *
 * **Gotchas**
 *
 * The server reads the file when it starts the turn. If the server cannot read or decode the file, the model receives a message about
 * that, and the turn continues.
 *
 * @category constructors
 * @since 0.1.0
 */
export const localImage = (path: string): Item => ({ type: "localImage", path })

/**
 * Makes a skill item from the name of a skill and the path of its `SKILL.md`. The path is checked as the path of {@link localImage} is.
 *
 * @category constructors
 * @since 0.1.0
 */
export const skill = (name: string, path: string): Item => ({ type: "skill", name, path })

/**
 * Makes a mention item, for example of an app (`app://…`) or a plugin (`plugin://…`), of a name and a path.
 *
 * @category constructors
 * @since 0.1.0
 */
export const mention = (name: string, path: string): Item => ({ type: "mention", name, path })

// `Array.isArray` does not narrow a readonly array.
const isItems = (input: Input): input is ReadonlyArray<Item> => Array.isArray(input)

/**
 * Converts an input to its items.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toItems = (input: Input): ReadonlyArray<Item> => {
  if (typeof input === "string") return [text(input)]
  return isItems(input) ? input : [input]
}

/**
 * Maximum number of characters (Unicode code points) in the text of an input. The server refuses more.
 *
 * @category constants
 * @since 0.1.0
 */
export const maxChars = 1_048_576

const countChars = (text: string): number => {
  // A string has at least as many UTF-16 units as code points, so only a longer one needs a count.
  if (text.length <= maxChars) return text.length
  let count = 0
  for (const _ of text) count++
  return count
}

/** Describes an image whose URL is a path. The server checks all other schemes. */
const imageIssue = (items: ReadonlyArray<Item>): string | undefined => {
  const index = items.findIndex((item) =>
    Predicate.isObject(item) && item.type === "image" && "url" in item && Predicate.isString(item.url) &&
    !/^(?!file:)[a-z][a-z0-9+.-]+:/i.test(item.url)
  )
  return index < 0
    ? undefined
    : `\`input[${index}].url\` is not a URL that the model can open. Use \`Input.localImage\` for a file`
}

/**
 * Converts an input to its items, and checks them for a request.
 *
 * **Details**
 *
 * Fails with `InvalidRequest` for more than {@link maxChars} characters of text, and for an image whose URL is the path of a file.
 * The paths of files are checked later, when the turn starts.
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
    : `the input has ${chars} characters of text. Shorten it to at most ${maxChars}`
  return issue === undefined
    ? Effect.succeed(items)
    : Effect.fail(appServerError(new InvalidRequest({ method, description: issue })))
}
