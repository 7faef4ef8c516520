/** The spellings of thread ids. */
import * as Predicate from "effect/Predicate"

/**
 * A thread id as the server writes it. The server also reads upper case, braces, `urn:uuid:` and no hyphens, so without this a record of
 * the thread is not found by another spelling. Anything else stays as it is, for the server to refuse.
 */
export const canonicalId = (id: string): string => {
  if (!Predicate.isString(id)) return id
  const digits = /^(?:urn:uuid:)?\{?([0-9a-f-]+)\}?$/i.exec(id)?.[1]?.replaceAll("-", "").toLowerCase()
  return digits?.length === 32 ? digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-") : id
}
