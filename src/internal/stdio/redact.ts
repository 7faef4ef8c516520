/** Removes what looks like a credential from text that ends up in errors and logs. */
const patterns: ReadonlyArray<readonly [RegExp, string]> = [
  // Terminal colours.
  // oxlint-disable-next-line no-control-regex
  [/\u001b\[[0-9;]*m/g, ""],
  [/\b(bearer|basic)\s+[\w.~+/=-]+/gi, "$1 <redacted>"],
  [/\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?/g, "<redacted>"],
  [/\b(?:sk|sess|pk|gh[opsu]|github_pat|xox[abps])[-_][\w-]{8,}/g, "<redacted>"],
  [
    /((?:api[_-]?key|token|secret|password|passwd|authorization)["']?\s*[:=]\s*)(?:"[^"]*"|'[^']*'|[^\s,;}]+)/gi,
    "$1<redacted>"
  ]
]

/** A function that redacts credentials in general and the given secrets in particular. */
export const makeRedact = (secrets: ReadonlyArray<string>): (text: string) => string => {
  const known = secrets.filter((secret) => secret.length > 0)
  return (text) => {
    let redacted = text
    for (const secret of known) redacted = redacted.replaceAll(secret, "<redacted>")
    for (const [pattern, replacement] of patterns) redacted = redacted.replace(pattern, replacement)
    return redacted
  }
}
