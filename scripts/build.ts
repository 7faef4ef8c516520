/**
 * Builds the package: the declarations of each module, and the code of all modules of the root as one chunk. Resolving and
 * loading sixty files would take longer than running them.
 *
 *     node scripts/build.ts [FOLDER]       the folder is `dist` by default
 */
import { execFileSync } from "node:child_process"
import { readdirSync, rmSync } from "node:fs"
import { createRequire } from "node:module"
import { dirname, isAbsolute, join } from "node:path"
import { fileURLToPath } from "node:url"
import { rolldown } from "rolldown"

const root = fileURLToPath(new URL("..", import.meta.url))
const source = join(root, "src")
const output = process.argv[2] ?? join(root, "dist")

rmSync(output, { recursive: true, force: true })

const typescript = dirname(createRequire(import.meta.url).resolve("typescript/package.json"))
execFileSync(process.execPath, [
  join(typescript, "bin/tsc"),
  "-p",
  join(root, "tsconfig.build.json"),
  "--outDir",
  output
], {
  stdio: "inherit"
})

const modules = [".", "ai", "cluster", "testing"].flatMap((folder) =>
  readdirSync(join(source, folder)).filter((name) => name.endsWith(".ts")).map((name) =>
    join(folder, name.slice(0, -3))
  )
)

const bundle = await rolldown({
  input: Object.fromEntries(modules.map((name) => [name, join(source, `${name}.ts`)])),
  external: (id) => !id.startsWith(".") && !isAbsolute(id),
  plugins: [{
    name: "protocol",
    // Keep `Protocol` a module namespace. As an object of the chunk, its thousand names would be created at each start.
    resolveId: (id, importer) =>
      id === "./Protocol.ts" && importer === join(source, "index.ts") ? { id: "./Protocol.js", external: true } : null
  }],
  platform: "node",
  // A program may use any export, so the build removes none.
  treeshake: false
})
/** The modules that a dynamic import loads. */
const lazy = /[\\/]src[\\/]internal[\\/]output[\\/](?:encodedSchema|fromWire|outputCodec|strictSchema)\.ts$/

await bundle.write({
  dir: output,
  sourcemap: true,
  comments: { jsdoc: false },
  chunkFileNames: "internal/[name].js",
  codeSplitting: {
    groups: [{
      name: "effect-codex",
      test: (id) =>
        !/[\\/]src[\\/](?:index|testing|internal[\\/](?:ai|testing|cluster)|ai[.\\/]|cluster[.\\/])/.test(id) &&
        !lazy.test(id)
    }]
  }
})
await bundle.close()
