/** The files of this repository, for tests of its documents and its package. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("..", import.meta.url))

/** Makes a temporary folder in the repository, where `effect-codex` is the sources of the package. */
export const makeFolder = Effect.flatMap(
  FileSystem.FileSystem,
  (fs) => fs.makeTempDirectoryScoped({ directory: root, prefix: ".docs-" })
)

/** Finds the TypeScript examples of a Markdown file, or of the doc comments of a module. */
export const findExamples = (text: string): ReadonlyArray<string> =>
  [...text.matchAll(/^[ *]*```ts\n([\s\S]*?)^[ *]*```$/gm)].map(([, code]) => code!.replace(/^ \* ?/gm, ""))
