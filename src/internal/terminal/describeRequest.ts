/** Describes approval requests at the terminal. */
import * as Predicate from "effect/Predicate"
import type * as Approvals from "../approvals/model.ts"
import { terminalLine, terminalText } from "./terminalText.ts"

const indented = (text: string): string => terminalText(text).split("\n").map((line) => `  │ ${line}`).join("\n")

const shortened = (text: string): string => text.length > 500 ? `${text.slice(0, 500)}…` : text

const titles = {
  command: "Codex wants to run this command outside of its sandbox:",
  writeStdin: "Codex wants to type into a running command:"
}

const describe = (request: Approvals.Request): ReadonlyArray<string> => {
  switch (request._tag) {
    case "Command": {
      const network = request.networkApprovalContext
      return [
        network === undefined
          ? request.kind === "writeStdin" ? titles.writeStdin : titles.command
          : `Codex wants to connect to ${terminalLine(`${network.host} (${network.protocol})`)} for this command:`,
        indented(request.script ?? request.command ?? "(the server did not send it)"),
        ...(request.cwd === undefined ? [] : [`in ${terminalLine(request.cwd)}`]),
        ...(request.additionalPermissions === undefined
          ? []
          : [`with more permissions: ${terminalLine(JSON.stringify(request.additionalPermissions))}`])
      ]
    }
    case "FileChange":
      return [
        "Codex wants to change files:",
        ...(request.changes === undefined
          ? ["  (the server did not send them)"]
          : request.changes.map(({ diff, kind, path }) => {
            const moved = kind.type === "update" && Predicate.isString(kind.move_path) ? ` → ${kind.move_path}` : ""
            return `${indented(`${kind.type} ${path}${moved}`)}\n${indented(diff.trimEnd())}`
          })),
        ...(request.grantRoot === undefined
          ? []
          : [`and to write below ${terminalLine(request.grantRoot)} from now on`])
      ]
    case "Permissions":
      return [
        "Codex wants more permissions:",
        indented(JSON.stringify(request.permissions, null, 2))
      ]
    case "McpToolCall":
      return [
        `Codex wants to call ${terminalLine(`${request.server}.${request.tool}`)}:`,
        indented(JSON.stringify(request.arguments, null, 2) ?? "")
      ]
  }
}

/** Describes what the user needs to know to decide. */
export const describeRequest = (request: Approvals.Request): string =>
  [
    // The text of the model comes first, so that it cannot push what is decided off the screen.
    ...(request.reason === undefined ? [] : ["Codex says:", indented(shortened(request.reason))]),
    ...describe(request)
  ].join("\n")
