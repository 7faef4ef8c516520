/** Collects what a program logs at Warn. */
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as Schedule from "effect/Schedule"

export const collect = () => {
  const warnings: Array<string> = []
  const logger = Logger.make(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const mentioning = (text: string) => warnings.filter((warning) => warning.includes(text))
  return {
    warnings,
    logger: Logger.layer([logger]),
    mentioning,
    /** Waits until a warning contains a text. */
    awaiting: (text: string) =>
      Effect.sync(() => mentioning(text)).pipe(
        Effect.repeat({ until: (found) => found.length > 0, schedule: Schedule.spaced("10 millis") }),
        Effect.timeoutOrElse({
          duration: "10 seconds",
          orElse: () => Effect.die(new Error(`no warning contains "${text}": ${warnings.join("\n")}`))
        })
      )
  }
}
