/** Finds the native binary that npm installed with `@openai/codex`. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Result from "effect/Result"
import { make as appServerError, SpawnFailed } from "../../AppServerError.ts"
import { hostProcess } from "./hostProcess.ts"

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

const spawnFailed = (description: string) =>
  appServerError(new SpawnFailed({ command: undefined, cwd: undefined, description }))

/** A file or directory to resolve packages from. */
interface SearchRoot {
  readonly name: string
  /** `undefined` if the root does not exist: a bundle may have no `import.meta.url`. */
  readonly path: string | undefined
}

/** Whether an executable is a runtime. The location of a compiled program leads to its packages; that of a runtime does not. */
const isRuntime = (name: string): boolean => /^(?:node|nodejs|bun|deno)(?:\.exe)?$/i.test(name)

/** This module or the bundle that contains it, the program, a compiled executable, and the working directory. */
const defaultRoots = Effect.fnUntraced(function*({ argv, execPath }: NodeJS.Process) {
  const path = yield* Path.Path
  // CommonJS bundles replace `import.meta` with an empty object.
  const url: string | undefined = import.meta.url
  const thisModule = url?.startsWith("file:") === true
    ? Option.getOrUndefined(yield* Effect.option(path.fromFileUrl(new URL(url))))
    : undefined
  const roots: ReadonlyArray<SearchRoot> = [
    { name: "this package", path: thisModule },
    { name: "the entry script", path: argv[1] },
    ...isRuntime(path.basename(execPath)) ? [] : [{ name: "the executable", path: execPath }],
    { name: "the working directory", path: path.resolve() }
  ]
  return roots
})

const exists = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.orElseSucceed(fs.exists(file), () => false)
})

const realPath = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.orElseSucceed(fs.realPath(file), () => file)
})

/**
 * Resolves the directory of a package. Only the resolution of the runtime knows every layout, such as Yarn's Plug'n'Play.
 * `import.meta.resolve` resolves from this module only.
 */
const resolvePackage = Effect.fnUntraced(function*(host: NodeJS.Process, name: string, from: string) {
  const path = yield* Path.Path
  return yield* Effect.option(Effect.try(() => {
    const { createRequire } = host.getBuiltinModule("module")
    return path.dirname(createRequire(path.join(from, "_")).resolve(`${name}/package.json`))
  }))
})

/** Finds the binary from one root, or fails with the reason. */
const findFrom = Effect.fnUntraced(function*(host: NodeJS.Process, root: string, target: string) {
  const path = yield* Path.Path
  // The root may be a link, such as those in `node_modules/.bin`.
  const codex = yield* resolvePackage(host, "@openai/codex", yield* realPath(root))
  if (Option.isNone(codex)) return yield* Effect.fail("`@openai/codex` is not installed")
  const nativeName = `@openai/codex-${host.platform.replace("android", "linux")}-${host.arch}`
  const native = yield* resolvePackage(host, nativeName, codex.value)
  const file = host.platform === "win32" ? "codex.exe" : "codex"
  // Up to 0.98, `@openai/codex` itself contains the binaries of all platforms. Up to 0.130, the folder is `codex`.
  const candidates = [...Option.toArray(native), codex.value].flatMap((directory) =>
    ["bin", "codex"].map((folder) => path.join(directory, "vendor", target, folder, file))
  )
  const binary = yield* Effect.findFirst(candidates, exists)
  if (Option.isSome(binary)) return binary.value
  return yield* Effect.fail(
    Option.isSome(native)
      ? `\`${nativeName}\` has no binary at ${candidates.slice(0, 2).map((file) => `\`${file}\``).join(" or ")}`
      : `\`@openai/codex\` at \`${codex.value}\` comes without \`${nativeName}\`, its optional dependency with the binary`
  )
})

/** Finds the binary from the first root that leads to one. */
export const findBinary = Effect.fnUntraced(function*(roots?: ReadonlyArray<SearchRoot>) {
  if (hostProcess === undefined) {
    return yield* spawnFailed("this platform does not run processes. Use another transport.")
  }
  const platform = `${hostProcess.platform}-${hostProcess.arch}`
  const target = targets[platform]
  if (target === undefined) {
    return yield* spawnFailed(`\`@openai/codex\` has no binary for \`${platform}\`. Set the option \`codexPath\`.`)
  }
  const failures: Array<string> = []
  for (const { name, path } of roots ?? (yield* defaultRoots(hostProcess))) {
    const found = path === undefined
      ? Result.fail("its path is unknown")
      : yield* Effect.result(findFrom(hostProcess, path, target))
    if (Result.isSuccess(found)) return found.success
    failures.push(`- from ${name}${path === undefined ? "" : ` (\`${path}\`)`}: ${found.failure}`)
  }
  return yield* spawnFailed(
    "no `codex` binary was found. Install `@openai/codex` with its optional dependencies, or set the option `codexPath`.\n" +
      failures.join("\n")
  )
})

/**
 * Finds the native binary from the default roots. `bin/codex.js` of the package would add a process between the client and the server.
 */
export const codexBinary = findBinary()
