/** `npm run check:layers`: imports of `src` point downwards, and only the testing kit imports Node.js modules. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { checkImports, type Layer } from "./imports.ts"
import { report } from "./report.ts"
import { readFiles } from "./source.ts"

/** The layers, the lowest first. A module imports only modules of its own row and of the rows before it. */
const layers: ReadonlyArray<Layer> = [
  {
    name: "vocabulary",
    modules: [
      "Protocol.ts",
      "AppServerError.ts",
      "ApprovalMode.ts",
      "CodexMetrics.ts",
      "CodexTelemetry.ts",
      "Input.ts",
      "Metadata.ts",
      "RateLimits.ts",
      "Sandbox.ts",
      "ThreadView.ts",
      "Tool.ts",
      "Transport.ts",
      "TurnView.ts",
      "Usage.ts",
      "internal/*.ts",
      "internal/protocol/**",
      "internal/handlers/**",
      "internal/approvals/**",
      "internal/questions/**",
      "internal/tools/**",
      "internal/output/**",
      "internal/budget/**",
      "internal/telemetry/**",
      "internal/view/**"
    ]
  },
  { name: "jsonrpc", modules: ["internal/jsonrpc/**"] },
  { name: "connection", modules: ["internal/connection/**"] },
  { name: "session", modules: ["internal/session/**"] },
  {
    name: "transport",
    modules: ["StdioTransport.ts", "SocketTransport.ts", "internal/stdio/**", "internal/socket/**"]
  },
  { name: "typed connection", modules: ["AppServer.ts"] },
  {
    name: "turns, threads and Codex",
    modules: ["Turn.ts", "Thread.ts", "Codex.ts", "Budget.ts", "internal/typedTurn/**", "internal/keyedTurn/**"]
  },
  {
    name: "approvals, questions and terminal",
    modules: ["Approvals.ts", "ApprovalPolicy.ts", "Questions.ts", "TerminalView.ts", "internal/terminal/**"]
  },
  { name: "pools", modules: ["CodexPool.ts", "internal/pool/**"] },
  {
    name: "areas",
    modules: ["ai/**", "internal/ai/**", "cluster/**", "internal/cluster/**", "testing/**", "internal/testing/**"]
  },
  { name: "entry points", modules: ["index.ts", "ai.ts", "cluster.ts", "testing.ts"] }
]

const program = Effect.gen(function*() {
  const files = yield* readFiles(["src"], (file) => file.endsWith(".ts"))
  return yield* report(checkImports(files, {
    folder: "src",
    packageName: "effect-codex",
    layers,
    node: ["testing/**", "internal/testing/**"]
  }))
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
