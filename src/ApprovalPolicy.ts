/**
 * Predefined policies about requests for approval, and combinators of policies.
 *
 * **Details**
 *
 * A policy decides about a request, or leaves it open for the next policy. A request that all policies leave open is declined.
 *
 * **Example** (Combining policies)
 *
 * ```ts
 * import { ApprovalPolicy, Approvals } from "effect-codex"
 *
 * export const approvals = Approvals.layer(
 *   ApprovalPolicy.firstOf(
 *     ApprovalPolicy.readOnlyCommands,
 *     ApprovalPolicy.acceptCommands((argv) => argv.join(" ") === "npm test"),
 *     ApprovalPolicy.onlyInside(ApprovalPolicy.acceptFileChanges, "/my/project"),
 *     ApprovalPolicy.timeout(ApprovalPolicy.askTerminal, "5 minutes")
 *   )
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Path from "effect/Path"
import * as Predicate from "effect/Predicate"
import type * as Terminal from "effect/Terminal"
import type * as Approvals from "./Approvals.ts"
import { readCommand } from "./internal/approvals/commandWords.ts"
import { isReadOnly } from "./internal/approvals/readOnlyCommand.ts"
import { resolvePath } from "./internal/approvals/resolvePath.ts"
import { toPolicy } from "./internal/approvals/toPolicy.ts"
import { timeoutTo } from "./internal/handlers/timeoutTo.ts"
import { assertOptions, duration as durationKind, func, nonEmpty } from "./internal/options.ts"
import { describeRequest } from "./internal/terminal/describeRequest.ts"
import { ask, notifyCancelled, show, withTerminalLock } from "./internal/terminal/prompt.ts"

const decide = (decision: Approvals.Decision): Effect.Effect<Option.Option<Approvals.Decision>> =>
  Effect.succeedSome(decision)

const open: Effect.Effect<Option.Option<never>> = Effect.succeedNone

interface PlainCommandRequest extends Approvals.CommandRequest {
  readonly argv: ReadonlyArray<string>
}

/** Tests if a request is to run one plain command, without a network connection or more permissions. */
const isPlainCommand = (request: Approvals.Request): request is PlainCommandRequest =>
  request._tag === "Command" && request.kind === "command" && request.networkApprovalContext === undefined &&
  request.additionalPermissions === undefined && request.argv !== undefined

/**
 * Declines every request.
 *
 * **When to use**
 *
 * End a chain of policies, so that the handlers of the thread or the context do not decide.
 *
 * @category policies
 * @since 0.1.0
 */
export const declineAll: Approvals.Policy = () => decide("decline")

/**
 * Accepts commands whose words satisfy a predicate.
 *
 * **Details**
 *
 * The predicate is called for single plain commands only, which have `argv`. Other requests are left open:
 *
 * - commands with a pipe, a redirection, a variable or other syntax of a shell;
 * - commands that start with a shell or a launcher such as `env`, `sudo` or `xargs`;
 * - network connections, and commands that request more permissions.
 *
 * **Gotchas**
 *
 * Codex uses login shells (`/bin/bash -lc '…'`) unless its configuration has `allow_login_shell = false`. A login shell runs the
 * user's profile before the command. `Approvals.CommandRequest` lists what else the words do not show.
 *
 * @category policies
 * @since 0.1.0
 */
export const acceptCommands = (
  predicate: (argv: ReadonlyArray<string>, request: Approvals.CommandRequest) => boolean
): Approvals.Policy => {
  assertOptions("ApprovalPolicy.acceptCommands", { predicate: func }, { predicate: predicate ?? null })
  return (request) => isPlainCommand(request) && predicate(request.argv, request) ? decide("accept") : open
}

/**
 * Accepts single plain commands that only read, such as `ls`, `cat`, `grep`, `rg`, `find` without actions, and `sed -n 1,9p`.
 *
 * **Details**
 *
 * A command is left open if its shell first runs files of the home directory, which an earlier command may have written. A login shell
 * runs a profile, and `zsh` runs `~/.zshenv`. A command is also left open if its shell is not in `/bin`, `/usr/bin` or
 * `/run/current-system/sw/bin`.
 *
 * Codex uses login shells by default. Without them, this policy accepts commands on systems where the user's shell is `bash` or `sh`.
 *
 * **Example** (Disabling login shells)
 *
 * ```ts
 * import { Codex } from "effect-codex"
 *
 * export const layer = Codex.layerStdio({ config: { allow_login_shell: false } })
 * ```
 *
 * **Gotchas**
 *
 * - The commands may read everything that the server may read, including keys and the environment of processes.
 * - Git commands are left open, because the configuration of a repository can make Git run programs.
 * - The policy recognizes a program by its name, and the server finds the program on its `PATH`. Remove directories that Codex may write
 *   from `PATH`: `npm start` and `npm run`, for example, put the project's `node_modules/.bin` first.
 * - `bash` also runs the file that `BASH_ENV` names in the server's environment.
 *
 * @category policies
 * @since 0.1.0
 */
export const readOnlyCommands: Approvals.Policy = acceptCommands((argv, { command }) =>
  isReadOnly(argv) && readCommand(command ?? "")?.runsStartupFiles === false
)

/**
 * Tests if a path contains a directory that configures Codex or Git, because such configuration can run programs.
 *
 * File systems may ignore letter case (`ſ` equals `s`) and some invisible characters. Windows has short names, and ignores the rest of a
 * name after some characters.
 */
const isProtected = (path: string): boolean =>
  path.split(/[\\/]/).some((name) =>
    /^(?:\.(?:git|codex|agents)|(?:git|codex|agents)~\d+)[. ]*(?::.*)?$/iu.test(name.replaceAll(/\p{Cf}/gu, ""))
  )

/**
 * Accepts changes of files if the server sent their diffs.
 *
 * **When to use**
 *
 * Combine it with {@link onlyInside} to limit the directory.
 *
 * **Details**
 *
 * Each path is resolved first, with all symbolic links, as the operating system does. Left open are:
 *
 * - changes in directories named `.git`, `.codex` or `.agents`, also through a link, because these can run programs later;
 * - paths that do not resolve: a relative path, a dangling link, a loop, an unreadable directory;
 * - requests for permission to write for the rest of the session.
 *
 * **Gotchas**
 *
 * Provide the `FileSystem` of the server's machine. The policy does not detect hard links, or links that are created after the request.
 *
 * @category policies
 * @since 0.1.0
 */
export const acceptFileChanges: Approvals.Policy<FileSystem.FileSystem | Path.Path> = Effect.fnUntraced(
  function*(request) {
    if (request._tag !== "FileChange" || request.grantRoot !== undefined) return Option.none()
    const paths = yield* resolvedPaths(request)
    return Option.isSome(paths) && !paths.value.some(isProtected) ? Option.some("accept" as const) : Option.none()
  }
)

interface RequestedPath {
  readonly path: string
  /** Whether the request changes the directory entry, and not only the file behind a link. */
  readonly entry?: boolean | undefined
}

/** The paths of a request, or `undefined` if the request is also about anything else. */
const getPaths = (request: Approvals.Request): ReadonlyArray<RequestedPath> | undefined => {
  switch (request._tag) {
    case "Command":
      return isPlainCommand(request) && request.cwd !== undefined ? [{ path: request.cwd }] : undefined
    case "FileChange": {
      if (request.changes === undefined) return undefined
      const paths: Array<RequestedPath> = request.grantRoot === undefined ? [] : [{ path: request.grantRoot }]
      for (const { kind, path } of request.changes) {
        if (kind.type === "update" && Predicate.isString(kind.move_path)) {
          paths.push({ path, entry: true }, { path: kind.move_path, entry: true })
        } else if (kind.type === "add" || kind.type === "update" || kind.type === "delete") {
          paths.push({ path, entry: kind.type === "delete" })
        } else {
          return undefined
        }
      }
      return paths
    }
    case "Permissions": {
      const { fileSystem, network } = request.permissions
      if (network?.enabled === true) return undefined
      const paths = [...fileSystem?.read ?? [], ...fileSystem?.write ?? []].map((path): RequestedPath => ({ path }))
      for (const { path } of fileSystem?.entries ?? []) {
        if (path.type !== "path") return undefined
        paths.push({ path: path.path })
      }
      return paths
    }
    case "McpToolCall":
      return undefined
  }
}

/** Resolves all paths of a request. Returns none if it has no paths, is not about paths only, or has a path that does not resolve. */
const resolvedPaths = Effect.fnUntraced(function*(
  request: Approvals.Request
): Effect.fn.Return<Option.Option<ReadonlyArray<string>>, never, FileSystem.FileSystem | Path.Path> {
  const resolved: Array<string> = []
  for (const { entry, path } of getPaths(request) ?? []) {
    for (const of of entry === true ? ["target", "entry"] as const : ["target"] as const) {
      const real = yield* resolvePath(path, { of })
      if (Option.isNone(real)) return Option.none()
      resolved.push(real.value)
    }
  }
  return resolved.length === 0 ? Option.none() : Option.some(resolved)
})

/**
 * Limits a policy to a directory, and leaves all other requests open.
 *
 * **Details**
 *
 * The policy receives:
 *
 * - changes of files that are all inside the directory, including the targets of moves;
 * - requests for permissions for files that are all inside the directory;
 * - plain commands whose working directory is inside the directory.
 *
 * The paths and the directory are resolved first, with all symbolic links, as the operating system does. A request with a path that does
 * not resolve is left open. A relative directory is resolved against the working directory of your process.
 *
 * **Gotchas**
 *
 * A command that runs inside the directory may still act elsewhere.
 *
 * Provide the `FileSystem` of the server's machine. The policy does not detect hard links, or links that are created after the request.
 *
 * @category combinators
 * @since 0.1.0
 */
export const onlyInside: {
  (folder: string): <const A extends Approvals.Approver<unknown>>(
    approver: A
  ) => Approvals.Policy<Approvals.Services<A> | FileSystem.FileSystem | Path.Path>
  <const A extends Approvals.Approver<unknown>>(
    approver: A,
    folder: string
  ): Approvals.Policy<Approvals.Services<A> | FileSystem.FileSystem | Path.Path>
} = dual(
  2,
  <R>(
    approver: Approvals.Approver<R>,
    folder: string
  ): Approvals.Policy<R | FileSystem.FileSystem | Path.Path> => {
    const policy = toPolicy(approver)
    // An empty path would mean the working directory.
    assertOptions("ApprovalPolicy.onlyInside", { folder: nonEmpty }, { folder: folder ?? null })
    return Effect.fnUntraced(function*(request) {
      const path = yield* Path.Path
      const paths = yield* resolvedPaths(request)
      // `path.resolve(folder)` would remove `..` before links are resolved.
      const root = yield* resolvePath(path.isAbsolute(folder) ? folder : `${path.resolve()}${path.sep}${folder}`)
      if (Option.isNone(paths) || Option.isNone(root)) return Option.none()
      const isInside = (real: string) => {
        const relative = path.relative(root.value, real)
        return relative !== ".." && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative)
      }
      return paths.value.every(isInside) ? yield* policy(request) : Option.none()
    })
  }
)

/**
 * Combines policies or handlers. The first one that decides wins.
 *
 * @category combinators
 * @since 0.1.0
 */
export const firstOf = <const Approvers extends ReadonlyArray<Approvals.Approver<unknown>>>(
  ...approvers: Approvers
): Approvals.Policy<Approvals.Services<Approvers[number]>> => {
  const policies = (approvers as ReadonlyArray<Approvals.Approver<Approvals.Services<Approvers[number]>>>).map(toPolicy)
  return Effect.fnUntraced(function*(request) {
    for (const policy of policies) {
      const decision = yield* policy(request)
      if (Option.isSome(decision)) return decision
    }
    return Option.none()
  })
}

/**
 * Limits the time of a policy. A request that it does not decide in time is declined.
 *
 * **Details**
 *
 * The policy is interrupted. The request is declined immediately, even if the policy is uninterruptible.
 *
 * @category combinators
 * @since 0.1.0
 */
export const timeout: {
  (duration: Duration.Input): <const A extends Approvals.Approver<unknown>>(
    approver: A
  ) => Approvals.Policy<Approvals.Services<A>>
  <const A extends Approvals.Approver<unknown>>(
    approver: A,
    duration: Duration.Input
  ): Approvals.Policy<Approvals.Services<A>>
} = dual(
  2,
  <R>(approver: Approvals.Approver<R>, duration: Duration.Input): Approvals.Policy<R> => {
    const policy = toPolicy(approver)
    assertOptions("ApprovalPolicy.timeout", { duration: durationKind }, { duration })
    return (request) => timeoutTo(policy(request), duration, () => Option.some("decline"))
  }
)

const choices: Readonly<Record<string, "accept" | "acceptForSession" | "decline" | "cancel">> = {
  y: "accept",
  yes: "accept",
  a: "acceptForSession",
  always: "acceptForSession",
  n: "decline",
  no: "decline",
  c: "cancel",
  cancel: "cancel"
}

/**
 * Shows each request on the terminal and prompts for a decision: yes, always (for this session), no, or cancel the turn.
 *
 * **Details**
 *
 * If the input has ended, the request is declined. Concurrent requests are shown one after the other.
 *
 * **Gotchas**
 *
 * With {@link timeout}, the time that a request waits for earlier ones counts too.
 *
 * @category policies
 * @since 0.1.0
 */
export const askTerminal: Approvals.Policy<Terminal.Terminal> = Effect.fnUntraced(
  function*(request): Effect.fn.Return<Option.Option<Approvals.Decision>, unknown, Terminal.Terminal> {
    yield* show(`\n${describeRequest(request)}\n`)
    while (true) {
      const line = yield* ask("Allow it? [y]es, [a]lways, [n]o, [c]ancel the turn: ")
      if (Option.isNone(line)) {
        yield* show("no\n")
        return Option.some("decline")
      }
      const answer = line.value.trim().toLowerCase()
      if (Object.hasOwn(choices, answer)) return Option.some(choices[answer]!)
    }
  },
  notifyCancelled,
  withTerminalLock
)
