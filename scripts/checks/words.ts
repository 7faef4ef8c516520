/** `npm run check:words`: documents, comments and strings use the terms of the field and American spelling. */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Effect from "effect/Effect"
import { type Allowed, checkWords, type Word } from "./prose.ts"
import { report } from "./report.ts"
import { readFiles } from "./source.ts"

const actor = "name the actor by its type: subscriber, handler, caller, server, fiber"

const words: ReadonlyArray<Word> = [
  { pattern: "(?:no|some|any|every)body", advice: actor },
  { pattern: "who(?:m)?ever", advice: actor },
  { pattern: "whatever", advice: "name the thing" },
  { pattern: "so many", advice: "name the quantity and its unit" },
  { pattern: "(?:is|are|was|were|be|been) told", advice: "use the verb of the field: receive, fail, notify" },
  { pattern: "misspelt|spelt|learnt|whilst", advice: "use American spelling" },
  { pattern: "for ever", advice: "write `forever`, or name the limit" },
  { pattern: "in vain|ever later|be (?:it|they)|wherefore|whereof|thereof", advice: "write it in modern English" },
  { pattern: "forsak(?:e|es|en|ing)|forsook", advice: "write `abandon`" },
  { pattern: "(?:behavi|col|fav|hon|neighb)our(?:s|ed|ing|ite|al)?", advice: "use American spelling" },
  { pattern: "catalogues?|centres?|dialogues?|grey|artefacts?|programmes?", advice: "use American spelling" },
  {
    pattern: "label(?:led|ling)|modell(?:ed|ing)|travell(?:ed|ing)|signall(?:ed|ing)",
    advice: "use American spelling"
  },
  { pattern: "analys(?:e|es|ed|ing)", advice: "use American spelling" },
  {
    pattern:
      "(?:author|categor|custom|initial|maxim|minim|normal|optim|organ|real|recogn|sanit|serial|summar|synchron|token|capital)" +
      "is(?:e|es|ed|er|ing|ation)",
    advice: "use American spelling"
  }
]

const allowed: ReadonlyArray<Allowed> = [
  { file: "src/internal/approvals/model.ts", word: "nobody", reason: "a value of the public `AuditEntry`" },
  {
    file: "src/internal/session/handlers/approvalHandler.ts",
    word: "nobody",
    reason: "a value of the public `AuditEntry`"
  },
  { file: "scripts/telemetry.ts", word: "nobody", reason: "a value of the public `AuditEntry`" },
  { file: "docs/observability.md", word: "nobody", reason: "a value of the public `AuditEntry`" },
  { file: "test/Approvals.test.ts", word: "nobody", reason: "a value of the public `AuditEntry`" }
]

const excluded = ["src/internal/protocol/generated/", "benchmark/built/", "scripts/checks/words.ts"]

const program = Effect.gen(function*() {
  const files = yield* readFiles(
    ["README.md", "AGENTS.md", "docs", "src", "test", "examples", "scripts", "benchmark"],
    (file) => /\.(?:md|ts|mjs)$/.test(file) && !excluded.some((prefix) => file.startsWith(prefix))
  )
  return yield* report(checkWords(files, words, allowed))
})

program.pipe(Effect.provide(NodeServices.layer), NodeRuntime.runMain)
