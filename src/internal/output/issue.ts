/** What is wrong with a response, and how it is shown to the model or a person. */

/** One thing that is wrong with a response. The path is that of the caller's schema, and the message holds no value. */
export interface Issue {
  readonly path: ReadonlyArray<PropertyKey>
  readonly message: string
}

const isArrayKey = (key: PropertyKey): boolean => typeof key === "number" || key === "*"

const isIdentifier = (key: PropertyKey): boolean => typeof key === "string" && /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(key)

/** Shows a path as JavaScript writes it: `steps[0].title`. An element of any index is `[]`. */
export const showPath = (path: ReadonlyArray<PropertyKey>): string =>
  path.map((key, index) =>
    key === "*"
      ? "[]"
      : isArrayKey(key)
      ? `[${String(key)}]`
      : isIdentifier(key)
      ? `${index === 0 ? "" : "."}${String(key)}`
      : `[${JSON.stringify(String(key))}]`
  ).join("")

/** Shows issues to the model or a person, one on each line. */
export const showIssues = (issues: ReadonlyArray<Issue>): string =>
  issues.map(({ message, path }) => path.length === 0 ? message : `\`${showPath(path)}\`: ${message}`).join("\n")
