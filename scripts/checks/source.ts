/** Reads the files of the repository, and the imports and the text in them. */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import { parseSync, Visitor } from "rolldown/utils"

/** Reads files of the repository, by their paths from its root. A folder stands for all files in it. */
export const readFiles = Effect.fn("source.readFiles")(
  function*(paths: ReadonlyArray<string>, include: (file: string) => boolean) {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const root = path.join(import.meta.dirname, "..", "..")
    const names = yield* Effect.forEach(paths, (name) =>
      path.extname(name) !== ""
        ? Effect.succeed([name])
        : Effect.map(
          fs.readDirectory(path.join(root, name), { recursive: true }),
          (names) => names.map((file) => path.join(name, file).replaceAll("\\", "/"))
        ))
    const files = names.flat().filter(include).sort()
    const texts = yield* Effect.forEach(files, (file) => fs.readFileString(path.join(root, file)), { concurrency: 16 })
    return new Map(files.map((file, index) => [file, texts[index]!]))
  }
)

export const getLine = (text: string, offset: number): number => text.slice(0, offset).split("\n").length

interface Import {
  readonly specifier: string
  readonly line: number
}

const parse = (file: string, text: string) => {
  const { comments, errors, program } = parseSync(file, text)
  if (errors.length > 0) throw new Error(`${file} does not parse: ${errors[0]!.message}`)
  return { comments, program }
}

/** The imports and re-exports of a module: static and dynamic ones, and those of types alone. */
export const findImports = (file: string, text: string): ReadonlyArray<Import> => {
  const imports: Array<Import> = []
  const add = (node: { readonly start: number; readonly source: object | null }) => {
    const { source } = node
    if (source !== null && "value" in source && typeof source.value === "string") {
      imports.push({ specifier: source.value, line: getLine(text, node.start) })
    }
  }
  new Visitor({
    ImportDeclaration: add,
    ExportNamedDeclaration: add,
    ExportAllDeclaration: add,
    ImportExpression: add,
    TSImportType: add
  }).visit(parse(file, text).program)
  return imports
}

/** The text of a module with everything but its comments and strings replaced by spaces. Lines and offsets stay. */
export const keepProse = (file: string, text: string): string => {
  const { comments, program } = parse(file, text)
  const ranges: Array<{ readonly start: number; readonly end: number }> = [...comments]
  new Visitor({
    Literal: (node) => typeof node.value === "string" && ranges.push(node),
    TemplateElement: (node) => ranges.push(node)
  }).visit(program)
  ranges.sort((a, b) => a.start - b.start)
  let prose = ""
  for (const { end, start } of ranges) {
    prose += text.slice(prose.length, start).replace(/[^\n]/g, " ") + text.slice(start, end)
  }
  return prose
}
