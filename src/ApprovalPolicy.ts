/**
 * Ready-made policies about what Codex asks for, and what composes them.
 *
 * A policy decides about a request or leaves it to the next. What all of them leave open is declined.
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

const decided = (decision: Approvals.Decision): Effect.Effect<Option.Option<Approvals.Decision>> =>
  Effect.succeed(Option.some(decision))

const open: Effect.Effect<Option.Option<never>> = Effect.succeedNone

/** The words of the command, if the request is to run one, and for nothing else besides. */
const argvOf = (request: Approvals.Request): ReadonlyArray<string> | undefined =>
  request._tag === "Command" && request.kind === "command" && request.networkApprovalContext === undefined &&
    request.additionalPermissions === undefined
    ? request.argv
    : undefined

/**
 * Declines everything, and so ends a chain before the handlers of the thread or the program are asked.
 *
 * @category policies
 * @since 0.1.0
 */
export const declineAll: Approvals.Policy = () => decided("decline")

/**
 * Accepts the commands whose words satisfy a predicate.
 *
 * **Details**
 *
 * The predicate sees single plain commands only, those with `argv`: a command with a pipe, a redirection, a variable or anything
 * else that a shell acts upon is left open, as is one that starts with a shell or a launcher such as `env`, `sudo` or `xargs`.
 * So are network connections, and commands that ask for more permissions.
 *
 * **Gotchas**
 *
 * Codex uses login shells (`/bin/bash -lc '…'`) unless its configuration has `allow_login_shell = false`. A login shell runs the
 * user's profile before the command. See `argv` of `Approvals.CommandRequest` for what the words do not show.
 *
 * @category policies
 * @since 0.1.0
 */
export const acceptCommands = (
  predicate: (argv: ReadonlyArray<string>, request: Approvals.CommandRequest) => boolean
): Approvals.Policy => {
  assertOptions("ApprovalPolicy.acceptCommands", { predicate: func }, { predicate: predicate ?? null })
  return (request) => {
    const argv = argvOf(request)
    return argv !== undefined && predicate(argv, request as Approvals.CommandRequest) ? decided("accept") : open
  }
}

/**
 * Accepts single plain commands that do nothing but read, such as `ls`, `cat`, `grep`, `rg`, `find` without actions, and
 * `sed -n 1,9p`.
 *
 * **Details**
 *
 * The command is left open if its shell runs files of the home directory first, because an earlier command may have written
 * them: a login shell runs a profile, and `zsh` runs `~/.zshenv`. It is also left open if its shell is not in `/bin`, `/usr/bin` or
 * `/run/current-system/sw/bin`. Codex uses login shells by default. Without them, this policy accepts commands on systems where
 * the user's shell is `bash` or `sh`:
 *
 * ```ts
 * import { Codex } from "effect-codex"
 *
 * export const layer = Codex.layerStdio({ config: { allow_login_shell: false } })
 * ```
 *
 * **Gotchas**
 *
 * - The commands may read whatever the server may, keys and the environment of processes too.
 * - Git is not among them, because the configuration of a repository can have it run programs.
 * - A program is known by its name, and found on the server's `PATH`. Keep folders that Codex may write out of that: `npm start`
 *   and `npm run`, for one, put the project's `node_modules/.bin` first.
 * - `bash` also runs the file that `BASH_ENV` names in the server's environment.
 *
 * @category policies
 * @since 0.1.0
 */
export const readOnlyCommands: Approvals.Policy = acceptCommands((argv, { command }) =>
  isReadOnly(argv) && readCommand(command ?? "")?.runsStartupFiles === false
)

/**
 * A path through a folder that configures Codex or Git, and can have them run programs. File systems may ignore letter case
 * (`ſ` is an `s` to them) and some invisible characters; Windows has short names, and ignores what follows the name.
 */
const isProtected = (path: string): boolean =>
  path.split(/[\\/]/).some((name) =>
    /^(?:\.(?:git|codex|agents)|(?:git|codex|agents)~\d+)[. ]*(?::.*)?$/iu.test(name.replaceAll(/\p{Cf}/gu, ""))
  )

/**
 * Accepts changes of files whose diffs are known; {@link onlyInside} says where.
 *
 * **Details**
 *
 * Each path is resolved first: links are followed as the operating system follows them, `..` after a link too. Left open are:
 *
 * - changes in folders named `.git`, `.codex` or `.agents`, which can have programs run later, also through a link;
 * - paths that do not resolve: relative ones, a link to what does not exist, a loop, a folder that cannot be read;
 * - the permission to write without being asked again.
 *
 * **Gotchas**
 *
 * The `FileSystem` must be the server's. A hard link, and a link that is made after the question, are not seen.
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

/** A path in a request; `entry` if the request changes the folder that it is in, and not only what is behind a link. */
interface RequestedPath {
  readonly path: string
  readonly entry?: boolean | undefined
}

/** The paths that a request is about; `undefined` if it is about anything else too. */
const pathsOf = (request: Approvals.Request): ReadonlyArray<RequestedPath> | undefined => {
  switch (request._tag) {
    case "Command":
      return argvOf(request) === undefined || request.cwd === undefined ? undefined : [{ path: request.cwd }]
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

/** Where all paths of a request lead; none if it has no paths, is about anything else too, or has one that does not resolve. */
const resolvedPaths = Effect.fnUntraced(function*(
  request: Approvals.Request
): Effect.fn.Return<Option.Option<ReadonlyArray<string>>, never, FileSystem.FileSystem | Path.Path> {
  const resolved: Array<string> = []
  for (const { entry, path } of pathsOf(request) ?? []) {
    for (const of of entry === true ? ["target", "entry"] as const : ["target"] as const) {
      const real = yield* resolvePath(path, { of })
      if (Option.isNone(real)) return Option.none()
      resolved.push(real.value)
    }
  }
  return resolved.length === 0 ? Option.none() : Option.some(resolved)
})

/**
 * Asks a policy only about what stays inside a folder, and leaves the rest open:
 *
 * - changes of files that all lie in it, to where they are moved too;
 * - permissions for files that all lie in it;
 * - plain commands that run in it. What such a command does elsewhere, this cannot tell.
 *
 * **Details**
 *
 * The paths and the folder are resolved first: links are followed as the operating system follows them, `..` after a link too.
 * A request with a path that does not resolve is left open. A relative folder is one of your process's working directory.
 *
 * **Gotchas**
 *
 * The `FileSystem` must be the server's. A hard link, and a link that is made after the question, are not seen.
 *
 * @category combinators
 * @since 0.1.0
 */
export const onlyInside: {
  (folder: string): <const A extends Approvals.Approver<any>>(
    approver: A
  ) => Approvals.Policy<Approvals.Services<A> | FileSystem.FileSystem | Path.Path>
  <const A extends Approvals.Approver<any>>(
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
    // An empty path is that of the working directory.
    assertOptions("ApprovalPolicy.onlyInside", { folder: nonEmpty }, { folder: folder ?? null })
    return Effect.fnUntraced(function*(request) {
      const path = yield* Path.Path
      const paths = yield* resolvedPaths(request)
      // Not `path.resolve(folder)`, which removes `..` before links are followed.
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
 * Asks policies, or typed handlers, in order until one decides.
 *
 * @category combinators
 * @since 0.1.0
 */
export const firstOf = <const Approvers extends ReadonlyArray<Approvals.Approver<any>>>(
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
 * Declines what a policy has not decided in time. The policy is interrupted, and is not waited for if it cannot be.
 *
 * @category combinators
 * @since 0.1.0
 */
export const timeout: {
  (duration: Duration.Input): <const A extends Approvals.Approver<any>>(
    approver: A
  ) => Approvals.Policy<Approvals.Services<A>>
  <const A extends Approvals.Approver<any>>(
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
 * Shows each request on the terminal and asks a person: yes, always (for this session), no, or cancel the turn. When there is
 * nobody to answer, because the input has ended, that is a no. Several requests are asked about one after the other; with a
 * {@link timeout} the wait for those before counts too.
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
