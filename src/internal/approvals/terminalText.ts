/** What a person is shown of a request. */
import * as Predicate from "effect/Predicate"
import type * as Approvals from "../../Approvals.ts"

// Control characters are what this is for.
// oxlint-disable-next-line no-control-regex
const unsafe = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]/g

/**
 * Text of the model as a terminal may show it: nothing in it moves the cursor, hides a part or turns its order around, so what
 * is read is what is there.
 */
export const terminalText = (text: string): string =>
  text.replace(unsafe, (char) => `\\u{${char.charCodeAt(0).toString(16)}}`)

/** The same on one line. */
const line = (text: string): string => terminalText(text).replaceAll("\n", "\\u{a}")

const indented = (text: string): string => terminalText(text).split("\n").map((line) => `  ${line}`).join("\n")

const titles = {
  command: "Codex wants to run this command outside of its sandbox:",
  writeStdin: "Codex wants to type into a command that runs:"
}

const describe = (request: Approvals.Request): ReadonlyArray<string> => {
  switch (request._tag) {
    case "Command": {
      const network = request.networkApprovalContext
      return [
        network === undefined
          ? request.kind === "writeStdin" ? titles.writeStdin : titles.command
          : `Codex wants to connect to ${line(`${network.host} (${network.protocol})`)} for this command:`,
        indented(request.script ?? request.command ?? "(the server does not say which)"),
        ...(request.cwd === undefined ? [] : [`in ${line(request.cwd)}`]),
        ...(request.additionalPermissions === undefined
          ? []
          : [`with more rights: ${line(JSON.stringify(request.additionalPermissions))}`])
      ]
    }
    case "FileChange":
      return [
        "Codex wants to change files:",
        ...(request.changes === undefined
          ? ["  (the server does not say which)"]
          : request.changes.map(({ diff, kind, path }) => {
            const moved = kind.type === "update" && Predicate.isString(kind.move_path) ? ` → ${kind.move_path}` : ""
            return `${indented(`${kind.type} ${path}${moved}`)}\n${indented(diff.trimEnd())}`
          })),
        ...(request.grantRoot === undefined
          ? []
          : [`and to write below ${line(request.grantRoot)} from now on`])
      ]
    case "Permissions":
      return [
        "Codex wants more rights:",
        indented(JSON.stringify(request.permissions, null, 2))
      ]
    case "McpToolCall":
      return [
        `Codex wants to call ${line(`${request.server}.${request.tool}`)}:`,
        indented(JSON.stringify(request.arguments, null, 2) ?? "")
      ]
  }
}

/** What a person must know to decide. */
export const describeRequest = (request: Approvals.Request): string =>
  [
    ...describe(request),
    ...(request.reason === undefined ? [] : ["because:", indented(request.reason)])
  ].join("\n")
