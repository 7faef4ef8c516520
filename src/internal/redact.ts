/** Removes secrets, and text that looks like a credential, from errors, logs and recordings. */
import * as Base64 from "effect/encoding/Base64"
import * as Predicate from "effect/Predicate"

/** The replacement of a secret. */
export const redacted = "<redacted>"

const patterns: ReadonlyArray<readonly [RegExp, string]> = [
  [/\b(bearer|basic)\s+[\w.~+/=-]{1,8192}/gi, `$1 ${redacted}`],
  [/\beyJ[\w-]{1,4096}\.[\w-]{1,4096}(?:\.[\w-]{0,4096})?/g, redacted],
  [/\b(?:sk|sess|pk|gh[opsu]|github_pat|xox[abps]|xapp|npm|glpat|hf)[-_][\w-]{8,}/g, redacted],
  [/\b(?:AKIA|ASIA)[A-Z0-9]{16}\b|\bAIza[\w-]{30,}/g, redacted],
  // The password in a URL.
  [/(:\/\/[^/\s:@]{1,256}:)[^@\s/]{1,256}@/g, `$1${redacted}@`],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)/g, redacted],
  [
    /((?:(?:api|access|private|secret)[_-]?key|token|secret|password|passwd|authorization)["']?\s*[:=]\s*)(?:"[^"]*"|'[^']*'|[^\s,;}]+)/gi,
    `$1${redacted}`
  ]
]

/** Matches the escape sequences of terminal colors. */
// oxlint-disable-next-line no-control-regex
export const ansiColors = /\u001b\[[0-9;]*m/g

/** Minimum length, in UTF-16 units, of a line of a secret that is removed on its own. A shorter line may be ordinary text. */
const minSecretPartLength = 8

/** Escapes text for a string of JSON. */
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1)

/** The secret itself, and how it is written in JSON, in JSON within JSON, in URLs and in headers. */
const encodings = (secret: string): ReadonlyArray<string> => [
  secret,
  escaped(secret),
  escaped(escaped(secret)),
  encodeURIComponent(secret.toWellFormed()),
  Base64.encode(secret)
]

/** Makes a function that removes secrets, whole or line by line, and leaves all other text unchanged. */
export const makeRemoveSecrets = (secrets: ReadonlyArray<string>): (text: string) => string => {
  const known = secrets.flatMap((secret) => {
    const lines = secret.split(/\r?\n/)
    return lines.length === 1 ? [secret] : [secret, ...lines.filter((line) => line.length >= minSecretPartLength)]
  }).filter((secret) => secret.length > 0).flatMap(encodings)
    // The longest come first, because one may be part of another.
    .sort((a, b) => b.length - a.length)
  if (known.length === 0) return (text) => text
  return (text) => {
    // A color sequence may split a secret.
    const plain = text.replace(ansiColors, "")
    let removed = plain
    for (const secret of known) removed = removed.replaceAll(secret, redacted)
    return removed === plain ? text : removed
  }
}

/** Redacts all keys and strings of a JSON value in place, without recursion: the value may be nested to any depth. */
export const redactInJson = (json: unknown, redact: (text: string) => string): unknown => {
  const root: Record<string, unknown> = { json }
  const holders = [root]
  for (const holder of holders) {
    for (const [key, value] of Object.entries(holder)) {
      const name = Array.isArray(holder) ? key : redact(key)
      if (name !== key) delete holder[key]
      holder[name] = Predicate.isString(value) ? redact(value) : value
      if (Predicate.isObjectOrArray(value)) holders.push(value as Record<string, unknown>)
    }
  }
  return root["json"]
}

/** Makes a function that removes secrets, text that looks like a credential, and terminal colors. */
export const makeRedact = (secrets: ReadonlyArray<string>): (text: string) => string => {
  const removeSecrets = makeRemoveSecrets(secrets)
  return (text) => {
    let clean = removeSecrets(text).replace(ansiColors, "")
    for (const [pattern, replacement] of patterns) clean = clean.replace(pattern, replacement)
    return clean
  }
}
