/** Finds the native binary that npm installed with `@openai/codex`. */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { make, SpawnFailed } from "../../AppServerError.ts"
import { type Builtins, builtins } from "./builtins.ts"

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

const failed = (description: string) => make(new SpawnFailed({ command: undefined, cwd: undefined, description }))

/** A place to look from: a directory or a file. Packages are looked up in it and in all directories above. */
export interface Place {
  readonly name: string
  /** `undefined` where the place does not exist, as a bundle may have no `import.meta.url`. */
  readonly path: string | undefined
}

/** Whether the executable is a runtime, and not the program itself. Where a runtime is installed says nothing of the program. */
const isRuntime = (name: string): boolean => /^(?:node|nodejs|bun|deno)(?:\.exe)?$/i.test(name)

/** This module or the bundle that it is part of, the program, a compiled executable, and the working directory. */
const places = ({ path: { basename }, url: { fileURLToPath } }: Builtins): ReadonlyArray<Place> => {
  // Bundles in CommonJS replace `import.meta` with an empty object.
  const url: string | undefined = import.meta.url
  return [
    { name: "this package", path: url?.startsWith("file:") === true ? fileURLToPath(url) : undefined },
    { name: "the entry script", path: process.argv[1] },
    ...isRuntime(basename(process.execPath)) ? [] : [{ name: "the executable", path: process.execPath }],
    { name: "the working directory", path: process.cwd() }
  ]
}

/** The directory of a package as it is resolved from a file or a directory. */
const resolvePackage = ({ module: { createRequire }, path: { dirname, join } }: Builtins, name: string, from: string) =>
  Result.try(() => dirname(createRequire(join(from, "_")).resolve(`${name}/package.json`)))

/** The binary that can be seen from a place, or why there is none. */
const findFrom = (
  node: Builtins,
  path: string,
  host: string,
  target: string
): Result.Result<string, string> => {
  // A program may be started through a link, as those in `node_modules/.bin` are.
  const real = Result.getOrElse(Result.try(() => node.fs.realpathSync(path)), () => path)
  const codex = resolvePackage(node, "@openai/codex", real)
  if (Result.isFailure(codex)) return Result.fail("`@openai/codex` is not installed")
  const packageName = `@openai/codex-${host.replace("android", "linux")}`
  // The package of the platform is a dependency of `@openai/codex`. Up to 0.98 there was none.
  const native = resolvePackage(node, packageName, codex.success)
  const roots = [...Result.isSuccess(native) ? [native.success] : [], codex.success]
  const file = host.startsWith("win32") ? "codex.exe" : "codex"
  const candidates = roots.flatMap((root) =>
    ["bin", "codex"].map((folder) => node.path.join(root, "vendor", target, folder, file))
  )
  const found = candidates.find(node.fs.existsSync)
  if (found !== undefined) return Result.succeed(found)
  return Result.fail(
    Result.isSuccess(native)
      ? `\`${packageName}\` has no binary at ${candidates.slice(0, 2).join(" or ")}`
      : `\`@openai/codex\` at ${codex.success} comes without \`${packageName}\`, its optional dependency that has the binary`
  )
}

/** Finds the binary from the first place that leads to one. */
export const findBinary = (from?: ReadonlyArray<Place>) =>
  Effect.suspend(() => {
    const node = builtins()
    if (node === undefined) return Effect.fail(failed("this platform has no processes; use another transport"))
    const host = `${process.platform}-${process.arch}`
    const target = targets[host]
    if (target === undefined) {
      return Effect.fail(failed(`@openai/codex has no binary for ${host}; set the option \`codexPath\``))
    }
    const failures: Array<string> = []
    for (const { name, path } of from ?? places(node)) {
      const found = path === undefined
        ? Result.fail("its path is unknown")
        : findFrom(node, path, host, target)
      if (Result.isSuccess(found)) return Effect.succeed(found.success)
      failures.push(`- from ${name}${path === undefined ? "" : ` (${path})`}: ${found.failure}`)
    }
    return Effect.fail(failed(
      `no codex binary was found; install \`@openai/codex\` with its optional dependencies, or set the option \`codexPath\`\n${
        failures.join("\n")
      }`
    ))
  })

/**
 * The path of the native binary. The package's own `bin/codex.js` is passed by: it would be a second process between us
 * and the server.
 */
export const codexBinary = findBinary()
