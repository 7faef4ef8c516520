/** Measures `import "effect-codex"` in addition to its Effect modules. */
import { execFileSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { type Result, summarize } from "./report.ts"

const root = fileURLToPath(new URL("..", import.meta.url))

/** The external modules that a module imports, directly or through modules of this package. */
const externals = (entry: string): ReadonlySet<string> => {
  const found = new Set<string>()
  const seen = new Set<string>()
  const visit = (file: string): void => {
    if (seen.has(file)) return
    seen.add(file)
    for (
      const [, specifier] of readFileSync(file, "utf8").matchAll(/^(?:import|export) (?:[^"]*? from )?"([^"]+)"/gm)
    ) {
      if (specifier!.startsWith(".")) visit(join(dirname(file), specifier!))
      else found.add(specifier!)
    }
  }
  visit(entry)
  return found
}

export const measureImports = (rounds: number): Result => {
  const directory = mkdtempSync(join(tmpdir(), "effect-codex-imports-"))
  try {
    symlinkSync(join(root, "node_modules"), join(directory, "node_modules"))
    const effect = [...externals(join(root, "dist/index.js"))].map((specifier) => `import "${specifier}"\n`).join("")
    const programs = {
      "the Effect modules that it needs": effect,
      "nothing": "",
      "effect-codex": `${effect}import ${JSON.stringify(join(root, "dist/index.js"))}\n`
    }
    const time = (program: string) => {
      const file = join(directory, "program.mjs")
      writeFileSync(file, program)
      const start = performance.now()
      execFileSync(process.execPath, [file])
      return { wallMs: performance.now() - start }
    }
    const measurements = Object.values(programs).map((): Array<{ readonly wallMs: number }> => [])
    for (let round = 0; round < rounds * 2; round++) {
      Object.values(programs).forEach((program, i) => measurements[i]!.push(time(program)))
    }
    return summarize({
      id: "imports",
      title: "Importing the package, whole process",
      figures: [{ of: "wallMs", label: "wall, ms" }],
      cases: Object.keys(programs).map((name) => ({
        name,
        client: "effectCodex" as const,
        plan: { kind: "flood" as const, turns: 0, messages: 0 }
      }))
    }, measurements)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
