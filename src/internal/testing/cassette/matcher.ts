/** Finds the recorded counterpart of each message that the program sends. */
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import type * as Schema from "effect/Schema"
import { compareMessages, type Comparison, describeDifferences, type Renaming, Renamings } from "./compare.ts"
import { CassetteMismatch, decodeJson } from "./format.ts"
import { makeJsonRedact } from "./redact.ts"
import {
  describe,
  type ExpectedMessage,
  getId,
  getKind,
  getMethod,
  isSameRequest,
  type Timeline,
  toComparable
} from "./timeline.ts"

const mentions = (message: Schema.Json, thread: string): boolean =>
  JSON.stringify(message).includes(JSON.stringify(thread))

/** Number of expected messages that a mismatch names. */
const maxDescribed = 5

export const makeMatcher = (recording: {
  readonly path: string
  readonly timeline: Timeline
  readonly redacted: ReadonlyArray<string>
  readonly ignore: ReadonlySet<string>
  readonly renamings: ReadonlyArray<Renaming>
}) => {
  const { ignore, path, timeline: { expected, threads } } = recording
  const redact = makeJsonRedact(recording.redacted, [])
  let renamings = new Renamings().with(recording.renamings)
  /** The threads that the program has sent a message about. */
  const used = new Set<string>()

  /** Swaps two threads of equal requests that the program could not distinguish yet. */
  const swapThreads = (recorded: string, actual: string): Renaming | undefined => {
    const wanted = threads.get(recorded)
    const given = threads.get(actual)
    if (wanted === undefined || given === undefined || used.has(actual)) return undefined
    const uses = expected.filter(({ message }) => mentions(message, recorded))
    const firstUse = expected.find(({ message }) => mentions(message, recorded) || mentions(message, actual))?.line ?? 0
    return wanted.line < firstUse && given.line < firstUse && uses.every(({ matched }) => matched === undefined) &&
        isSameRequest(wanted.by, given.by)
      ? { recorded, actual, from: uses[0]!.line }
      : undefined
  }

  const compare = (candidate: ExpectedMessage, actual: Schema.Json): Comparison =>
    compareMessages(toComparable(candidate.message), toComparable(actual), candidate.method, {
      renamings,
      ignore,
      swapThreads
    })

  const unmatched = () => expected.filter(({ matched }) => matched === undefined)

  const toMismatch = (kind: string, message: Schema.Json): CassetteMismatch => {
    const left = unmatched()
    const closest = left
      .filter((candidate) => candidate.kind === kind)
      .map((candidate) => ({ candidate, differences: compare(candidate, message).differences }))
      .sort((a, b) => a.differences.length - b.differences.length)[0]
    const sameKind = expected.find((other) => other.kind === kind)
    const stillExpected = left.length === 0
      ? "The program has sent all recorded messages"
      : `Still expected: ${left.slice(0, maxDescribed).map(describe).join(", ")}${
        left.length > maxDescribed ? ", …" : ""
      }`
    return new CassetteMismatch({
      path,
      method: getMethod(message) ?? sameKind?.method ?? "",
      expected: closest?.candidate.message,
      actual: message,
      diff: closest === undefined
        ? `The program sent ${kind}, which the recording ${
          sameKind === undefined ? "does not have" : "does not have again"
        }. ${stillExpected}. Record the cassette again if the change is intended`
        : `The program sent ${kind} with other content than the recording. Record the cassette again if the change is ` +
          `intended. The closest message is on line ${closest.candidate.line} (- recorded, + sent):\n${
            describeDifferences(closest.differences)
          }`
    })
  }

  return {
    unmatched,
    /** Renames the paths and ids of a recorded message to those of this run. */
    toActual: (message: Schema.Json, line: number) => renamings.toActual(message, line),
    /** Matches a line of the program with its counterpart. */
    match: (line: string): Result.Result<ExpectedMessage, CassetteMismatch> => {
      const decoded = decodeJson(line)
      const message = Option.match(decoded, { onNone: () => redact.text(line), onSome: redact.json })
      const kind = Option.isNone(decoded) ? "text" : getKind(message)
      let best: { readonly candidate: ExpectedMessage; readonly comparison: Comparison } | undefined
      for (const candidate of expected) {
        if (candidate.matched !== undefined || candidate.kind !== kind) continue
        const comparison = compare(candidate, message)
        if (comparison.differences.length > 0) continue
        if (best === undefined || comparison.cost < best.comparison.cost) best = { candidate, comparison }
        if (comparison.cost === 0) break
      }
      if (best === undefined) return Result.fail(toMismatch(kind, message))
      renamings = renamings.with(best.comparison.renamings)
      best.candidate.matched = { id: Option.isSome(decoded) ? getId(decoded.value) : undefined }
      for (const thread of threads.keys()) if (mentions(message, thread)) used.add(thread)
      return Result.succeed(best.candidate)
    }
  }
}

export type Matcher = ReturnType<typeof makeMatcher>
