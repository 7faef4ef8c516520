/** Removes what looks like a credential from text that ends up in errors and logs. */
const patterns: ReadonlyArray<readonly [RegExp, string]> = [
  // Terminal colours.
  // oxlint-disable-next-line no-control-regex
  [/\u001b\[[0-9;]*m/g, ""],
  [/\b(bearer|basic)\s+[\w.~+/=-]{1,8192}/gi, "$1 <redacted>"],
  [/\beyJ[\w-]{1,4096}\.[\w-]{1,4096}(?:\.[\w-]{0,4096})?/g, "<redacted>"],
  [/\b(?:sk|sess|pk|gh[opsu]|github_pat|xox[abps]|xapp|npm|glpat|hf)[-_][\w-]{8,}/g, "<redacted>"],
  [/\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}/g, "<redacted>"],
  // The password in a URL.
  [/(:\/\/[^/\s:@]{1,256}:)[^@\s/]{1,256}@/g, "$1<redacted>@"],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, "<redacted>"],
  [
    /((?:(?:api|access|private|secret)[_-]?key|token|secret|password|passwd|authorization)["']?\s*[:=]\s*)(?:"[^"]*"|'[^']*'|[^\s,;}]+)/gi,
    "$1<redacted>"
  ]
]

/** A part of a secret this short could be anything. */
const shortestPart = 8

/**
 * A function that redacts credentials in general and the given secrets in particular, also those that come line by line.
 */
export const makeRedact = (secrets: ReadonlyArray<string>): (text: string) => string => {
  const known = secrets.flatMap((secret) => {
    const lines = secret.split(/\r?\n/)
    return lines.length === 1 ? [secret] : [secret, ...lines.filter((line) => line.length >= shortestPart)]
  }).filter((secret) => secret.length > 0)
  return (text) => {
    let redacted = text
    for (const secret of known) redacted = redacted.replaceAll(secret, "<redacted>")
    for (const [pattern, replacement] of patterns) redacted = redacted.replace(pattern, replacement)
    return redacted
  }
}
