/** Compares the version of a server with the versions that this package supports. */
import { version as generatedFrom } from "../protocol/generated/methods.ts"

/** The oldest server that keeps a thread's permissions when it is resumed or forked. */
export const floor = "0.166.0"

type Version = readonly [major: number, minor: number, patch: number]

/** Parses a release of Codex or one of its pre-releases. Builds from source and test doubles have the version `0.0.0`, which is unknown. */
const parse = (version: string): Version | undefined => {
  const parts = /^(\d+)\.(\d+)\.(\d+)(?:[-+\s].*)?$/.exec(version)
  if (parts === null) return undefined
  const [major, minor, patch] = [Number(parts[1]), Number(parts[2]), Number(parts[3])]
  return major === 0 && minor === 0 ? undefined : [major, minor, patch]
}

const oldest = parse(floor)!

const isTooOld = (version: Version): boolean => {
  const differs = version.findIndex((part, index) => part !== oldest[index])
  return differs !== -1 && version[differs]! < oldest[differs]!
}

/** Returns how this package supports a version of the server. A pre-release counts as the release that it precedes. */
export const getSupport = (version: string): "unsupported" | "different" | "same" | "unknown" => {
  const parsed = parse(version)
  if (parsed === undefined) return "unknown"
  if (isTooOld(parsed)) return "unsupported"
  return version === generatedFrom ? "same" : "different"
}
