/**
 * Measures all questions and writes `benchmark/results.json`, `docs/benchmark.md` and its plots.
 *
 *     npm run bench                              all questions, for some minutes
 *     npm run bench -- --only stream,run         some questions, and no files are written
 *     npm run bench -- --rounds 3                fewer rounds than 7
 *
 * In each round all cases of a question run one after the other, each in its own process. Each round starts with another case. A
 * ratio compares two runs of the same round.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { CodexEnvironment, ModelServer, TestCodex } from "effect-codex/testing"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import { execFile } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { createRequire } from "node:module"
import { cpus } from "node:os"
import { performance } from "node:perf_hooks"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { build, fileOf, remove } from "./forms.ts"
import { measureImports } from "./imports.ts"
import type { Measurement } from "./plan.ts"
import { type Case, type Question, questions } from "./questions.ts"
import { report, type Result, summarize, table } from "./report.ts"

class ClientFailed extends Data.TaggedError("ClientFailed")<{ readonly message: string }> {}

const { values: options } = parseArgs({
  options: { only: { type: "string" }, rounds: { type: "string", default: "7" } }
})

const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url))

const codexBinary = (): string => {
  const require = createRequire(createRequire(import.meta.url).resolve("@openai/codex/package.json"))
  const manifest = require.resolve(`@openai/codex-${process.platform}-${process.arch}/package.json`)
  const vendor = new URL("vendor/", `file://${manifest}`)
  const [target] = readdirSync(vendor)
  return fileURLToPath(new URL(`${target}/bin/codex`, vendor))
}

/** The proportional memory of a process and its descendants, in megabytes, where the system reports it. */
const treeMb = (root: number): number => {
  const children = new Map<number, Array<number>>()
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue
    try {
      const parent = Number(readFileSync(`/proc/${name}/stat`, "utf8").split(") ")[1]!.split(" ")[1])
      children.set(parent, [...children.get(parent) ?? [], Number(name)])
    } catch {
      // The process has exited.
    }
  }
  const sum = (pid: number): number => {
    let pss = 0
    try {
      pss = Number(/^Pss:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, "utf8"))?.[1] ?? 0) / 1024
    } catch {
      // The process has exited.
    }
    return (children.get(pid) ?? []).reduce((total, child) => total + sum(child), pss)
  }
  return sum(root)
}

/** Runs a case in its own process. */
const runCase = (each: Case, needsMemory: boolean, environment: NodeJS.ProcessEnv, cwd: string) =>
  Effect.callback<Measurement, ClientFailed>((resume) => {
    const { client, plan } = each
    const start = performance.now()
    const binary = plan.kind === "real" ? { binary: codexBinary() } : {}
    const child = execFile(
      process.execPath,
      [
        ...(plan.mode === "slow" || needsMemory && (plan.mode === "run" || plan.kind === "fold")
          ? ["--expose-gc"]
          : []),
        fileOf(each),
        JSON.stringify({ ...plan, ...binary })
      ],
      { cwd, env: { ...process.env, ...environment }, maxBuffer: 1e8 },
      (error, stdout, stderr) => {
        clearInterval(watch)
        const processMs = performance.now() - start
        if (error !== null) {
          return resume(Effect.fail(new ClientFailed({ message: `${client}: ${error.message}\n${stderr}` })))
        }
        return resume(Effect.succeed({ ...JSON.parse(stdout), processMs, ...(peakMb === 0 ? {} : { peakMb }) }))
      }
    )
    let peakMb = 0
    const watch = setInterval(() => {
      if (needsMemory && process.platform === "linux") peakMb = Math.max(peakMb, treeMb(child.pid!))
    }, 50)
    return Effect.sync(() => child.kill())
  })

const ask = Effect.fnUntraced(function*(question: Question, most: number) {
  const { env, workspace } = yield* CodexEnvironment.CodexEnvironment
  const rounds = Math.min(question.rounds ?? most, most)
  const measurements = question.cases.map((): Array<Measurement> => [])
  const measuresMemory = question.figures.some(({ of }) => of === "peakMb" || of === "heapGrowthMb")
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < question.cases.length; i++) {
      const index = (i + round) % question.cases.length
      measurements[index]!.push(yield* runCase(question.cases[index]!, measuresMemory, env, workspace))
    }
  }
  return summarize(question, measurements)
})

const program = Effect.gen(function*() {
  const model = yield* ModelServer.ModelServer
  yield* model.respond(() => ModelServer.text("Forty-two, as far as science knows."))
  const only = options.only?.split(",")
  const rounds = Number(options.rounds)
  const results: Array<Result> = []
  const asked = questions.filter(({ id }) => only === undefined || only.includes(id))
  yield* Effect.acquireRelease(
    Effect.promise(() => build(asked.flatMap(({ cases }) => cases))),
    () => Effect.sync(remove)
  )
  for (const question of asked) {
    const result = yield* ask(question, rounds)
    results.push(result)
    yield* Console.log(table(result))
  }
  if (only === undefined || only.includes("imports")) {
    const result = yield* Effect.sync(() => measureImports(rounds))
    results.push(result)
    yield* Console.log(table(result))
  }
  if (only !== undefined) return
  const files = yield* FileSystem.FileSystem
  const { home } = yield* Config.all({ home: Config.withDefault(Config.String("HOME"), "") })
  const machine = `${
    cpus()[0]?.model.trim()
  }, ${cpus().length} processors, ${process.platform}, Node ${process.version}`
  yield* files.writeFileString(
    pathOf("results.json"),
    `${JSON.stringify({ machine, rounds, results }, undefined, 2).replaceAll(home === "" ? "\0" : home, "~")}\n`
  )
  yield* files.makeDirectory(pathOf("../docs/benchmark"), { recursive: true })
  for (const [name, content] of report(results, machine, rounds)) {
    yield* files.writeFileString(pathOf(`../docs/${name}`), content)
  }
})

program.pipe(Effect.scoped, Effect.provide(TestCodex.layerEnvironment()), NodeRuntime.runMain)
