/** Collects what a program logs at Warn. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { poll } from "./poll.ts"

export const collectWarnings = () => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const containing = (text: string) => warnings.filter((warning) => warning.includes(text))
  return {
    warnings,
    logger: Logger.layer([logger]),
    containing,
    /** Waits for warnings that contain a text. */
    awaitContaining: (text: string) =>
      Effect.map(
        poll(Effect.sync(() => warnings), () => containing(text).length > 0, `a warning that contains "${text}"`),
        () => containing(text)
      )
  }
}
