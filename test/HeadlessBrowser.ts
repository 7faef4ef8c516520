/** A real browser without a window, from the packages of npm alone. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { createReadStream, createWriteStream, existsSync, mkdirSync, renameSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { pipeline } from "node:stream/promises"
import { createBrotliDecompress } from "node:zlib"
import * as Puppeteer from "puppeteer-core"
import { root } from "./repository.ts"

/** Unpacks the browser of `@sparticuz/chromium`, once after each `npm ci`. Takes ten seconds. */
const unpack = async (): Promise<string> => {
  const folder = join(root, "node_modules/.cache/effect-codex/chromium")
  const path = join(folder, "chromium")
  if (existsSync(path)) return path
  mkdirSync(folder, { recursive: true })
  const packed = join(dirname(createRequire(import.meta.url).resolve("@sparticuz/chromium")), "../bin/chromium.br")
  // A test that is ended here leaves no half of a browser, and tests in parallel share one.
  const part = `${path}.${process.pid}`
  await pipeline(createReadStream(packed), createBrotliDecompress(), createWriteStream(part, { mode: 0o755 }))
  renameSync(part, path)
  return path
}

/** The path of the browser: `CHROME_PATH`, the packed browser where it runs, or the Chrome of the machine. */
const findBrowser = async (): Promise<string> => {
  const { CHROME_PATH } = process.env
  if (CHROME_PATH !== undefined) return CHROME_PATH
  if (process.platform === "linux" && process.arch === "x64") return unpack()
  return Puppeteer.default.executablePath("chrome")
}

const launch = Effect.tryPromise({
  try: async () => {
    const executablePath = await findBrowser()
    // The sandbox of the browser does not start as root. The tests open only pages of this machine.
    return Puppeteer.launch({ executablePath, headless: "shell", args: ["--no-sandbox", "--disable-gpu"] })
  },
  catch: (cause) =>
    new Error(
      "No browser starts on this machine. Install the libraries that the cause names, or set CHROME_PATH to a Chrome.",
      { cause }
    )
})

/** Returns why no browser starts, or `undefined` if one does. */
export const findIssue = (): Promise<string | undefined> =>
  launch.pipe(
    Effect.flatMap((browser) => Effect.promise(() => browser.close())),
    Effect.as(undefined),
    Effect.catch(({ cause, message }) => Effect.succeed(`${message} ${String(cause)}`)),
    Effect.runPromise
  )

export class HeadlessBrowser extends Context.Service<HeadlessBrowser, {
  /** Opens a page in a new tab, which is closed with the scope. */
  readonly open: (url: string) => Effect.Effect<Puppeteer.Page, never, Scope.Scope>
}>()("test/HeadlessBrowser") {
  static readonly layer = Layer.effect(
    HeadlessBrowser,
    Effect.gen(function*() {
      const browser = yield* Effect.acquireRelease(launch, (browser) => Effect.promise(() => browser.close()))
      return {
        open: (url) =>
          Effect.acquireRelease(
            Effect.promise(() => browser.newPage()),
            (page) => Effect.promise(() => page.isClosed() ? Promise.resolve() : page.close())
          ).pipe(Effect.tap((page) => Effect.promise(() => page.goto(url))))
      }
    })
  )
}
