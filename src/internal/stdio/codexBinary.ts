/** Finds the native binary that npm installed with `@openai/codex`. */
import * as Effect from "effect/Effect"
import { existsSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, join } from "node:path"
import { make, SpawnFailed } from "../../AppServerError.ts"

const targets: Record<string, string> = {
  "linux-x64": "x86_64-unknown-linux-musl",
  "linux-arm64": "aarch64-unknown-linux-musl",
  "android-x64": "x86_64-unknown-linux-musl",
  "android-arm64": "aarch64-unknown-linux-musl",
  "darwin-x64": "x86_64-apple-darwin",
  "darwin-arm64": "aarch64-apple-darwin",
  "win32-x64": "x86_64-pc-windows-msvc",
  "win32-arm64": "aarch64-pc-windows-msvc"
}

const failed = (description: string, cause?: unknown) =>
  make(
    new SpawnFailed({ command: undefined, cwd: undefined, description, ...(cause === undefined ? {} : { cause }) })
  )

/**
 * The path of the native binary. The package's own `bin/codex.js` is passed by: it would be a second process between us
 * and the server.
 */
export const codexBinary = Effect.suspend(() => {
  const platform = `${process.platform}-${process.arch}`
  const target = targets[platform]
  if (target === undefined) {
    return Effect.fail(failed(`@openai/codex has no binary for ${platform}; set codexPath`))
  }
  const packageName = `@openai/codex-${platform.replace("android", "linux")}`
  return Effect.try({
    try: () => {
      // The platform package is a dependency of `@openai/codex`, not of ours, so it is looked up from there.
      const codex = createRequire(import.meta.url).resolve("@openai/codex/package.json")
      return createRequire(codex).resolve(`${packageName}/package.json`)
    },
    catch: (cause) =>
      failed(
        `${packageName} is not installed (it is an optional dependency of @openai/codex); reinstall, or set codexPath`,
        cause
      )
  }).pipe(
    Effect.map((manifest) =>
      join(dirname(manifest), "vendor", target, "bin", process.platform === "win32" ? "codex.exe" : "codex")
    ),
    Effect.filterOrFail(
      existsSync,
      (path) => failed(`${packageName} has no binary at ${path}; reinstall, or set codexPath`)
    )
  )
})
