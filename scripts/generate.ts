/**
 * Writes `src/internal/protocol/generated` from the JSON Schema that the pinned `codex` binary prints about its protocol.
 *
 *     node scripts/generate.ts [--out DIR]
 *
 * Messages of the client become strict schemas, messages of the server become open ones (see `openSchema.ts`). A
 * definition that travels in both directions becomes two: `X` as received, and `XParam` as sent. The program stops at a
 * schema keyword or a shape that it does not understand.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import manifest from "@openai/codex/package.json" with { type: "json" }
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Util from "node:util"
import { codexBinary } from "../src/internal/stdio/codexBinary.ts"
import { definitionsFile, makeNameSent } from "./generate/definitionsFile.ts"
import { methodsFile } from "./generate/methodsFile.ts"
import { readProtocol } from "./generate/protocol.ts"
import { readDefinitions } from "./generate/schema.ts"

const program = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { values } = Util.parseArgs({ options: { out: { type: "string" } } })
  const out = values.out ?? path.join(import.meta.dirname, "..", "src", "internal", "protocol", "generated")
  const binary = yield* codexBinary
  const { version } = manifest

  const protocol = readProtocol(yield* readDefinitions(binary, ["--experimental"]), yield* readDefinitions(binary, []))
  const nameSent = makeNameSent(protocol)
  yield* fs.makeDirectory(out, { recursive: true })
  yield* fs.writeFileString(path.join(out, "definitions.ts"), definitionsFile(version, protocol, nameSent))
  yield* fs.writeFileString(path.join(out, "methods.ts"), methodsFile(version, protocol, nameSent))
  yield* Console.log(`Wrote definitions.ts and methods.ts of @openai/codex ${version} to ${out}`)
})

program.pipe(Effect.scoped, Effect.provide(NodeServices.layer), NodeRuntime.runMain)
