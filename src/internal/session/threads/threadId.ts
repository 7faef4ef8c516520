/** Normalizes thread ids. */
import * as Predicate from "effect/Predicate"

/**
 * Returns a thread id as the server writes it, by which records are found. The server also accepts upper case, braces, `urn:uuid:` and no
 * hyphens. Returns any other value unchanged, for the server to refuse.
 */
export const canonicalId = (id: string): string => {
  if (!Predicate.isString(id)) return id
  const digits = /^(?:urn:uuid:)?\{?([0-9a-f-]+)\}?$/i.exec(id)?.[1]?.replaceAll("-", "").toLowerCase()
  return digits?.length === 32 ? digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-") : id
}
