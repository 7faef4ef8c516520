/** Checks which modules and packages the modules of a folder import. */
import { isBuiltin } from "node:module"
import { matchesGlob, posix } from "node:path"
import { findImports } from "./source.ts"

/** Modules, as glob patterns of paths in the folder. */
type Modules = ReadonlyArray<string>

/** A layer may import itself and the layers below it. */
export interface Layer {
  readonly name: string
  readonly modules: Modules
}

export interface ImportRules {
  /** The folder with the modules, and the name by which its package imports itself. */
  readonly folder: string
  readonly packageName: string
  /** The layers, the lowest first. Each module belongs to exactly one. */
  readonly layers: ReadonlyArray<Layer>
  /** The only modules that may import Node.js modules and `@effect/platform-node`. */
  readonly node: Modules
}

const matches = (module: string, patterns: Modules): boolean => patterns.some((pattern) => matchesGlob(module, pattern))

const isNode = (specifier: string): boolean => isBuiltin(specifier) || specifier.startsWith("@effect/platform-node")

/** Returns one line for each violation. Files are texts by path. */
export const checkImports = (files: ReadonlyMap<string, string>, rules: ImportRules): ReadonlyArray<string> => {
  const modules = new Map([...files].map(([file, text]) => [posix.relative(rules.folder, file), text]))
  return [
    ...checkTable([...modules.keys()], rules),
    ...[...modules].flatMap(([module, text]) =>
      findImports(module, text).flatMap(({ line, specifier }) => {
        const problem = checkImport(module, specifier, rules)
        return problem === undefined ? [] : [`${rules.folder}/${module}:${line} ${problem}`]
      })
    )
  ]
}

/** Reports modules without exactly one layer, and patterns without a module. */
const checkTable = (modules: ReadonlyArray<string>, { folder, layers, node }: ImportRules): ReadonlyArray<string> => {
  const unused = [...layers.flatMap((layer) => layer.modules), ...node]
    .filter((pattern) => !modules.some((module) => matchesGlob(module, pattern)))
  const misplaced = modules.flatMap((module) => {
    const names = layers.filter((layer) => matches(module, layer.modules)).map((layer) => `"${layer.name}"`)
    return names.length === 1 ? [] : [`${folder}/${module} belongs to ${names.join(" and ") || "no layer"}`]
  })
  return [...unused.map((pattern) => `\`${pattern}\` matches no module`), ...misplaced]
}

const checkImport = (module: string, specifier: string, rules: ImportRules): string | undefined => {
  const { layers, node, packageName } = rules
  if (isNode(specifier) && !matches(module, node)) {
    return `imports \`${specifier}\`, which only ${node.join(", ")} may import`
  }
  const target = resolve(module, specifier, packageName)
  if (target === undefined) return undefined
  const own = layers.findIndex((layer) => matches(module, layer.modules))
  const other = layers.findIndex((layer) => matches(target, layer.modules))
  return own !== -1 && other > own
    ? `imports \`${target}\`: the layer "${layers[own]!.name}" is below "${layers[other]!.name}"`
    : undefined
}

/** The path of an imported module in the folder, or `undefined` for a module of another package. */
const resolve = (from: string, specifier: string, packageName: string): string | undefined => {
  if (specifier.startsWith(".")) return posix.join(posix.dirname(from), specifier)
  if (specifier === packageName) return "index.ts"
  return specifier.startsWith(`${packageName}/`) ? `${specifier.slice(packageName.length + 1)}.ts` : undefined
}
