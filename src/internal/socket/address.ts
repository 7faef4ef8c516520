/** Checks the address of a server, and shows it in errors. */
import * as Result from "effect/Result"
import { hostProcess } from "../stdio/hostProcess.ts"

/** The address of a server. */
export interface Address {
  /** The URL for the WebSocket. */
  readonly url: string
  /** The address in errors. A query or a password may be a secret, so both are left out. */
  readonly shown: string
  /** Whether a token stays on this machine or is encrypted. */
  readonly isPrivate: boolean
  readonly isUnix: boolean
}

/** Whether a host name is of this machine. `URL` normalizes the forms of an address, such as `127.1`. */
const isLoopback = (host: string): boolean =>
  host === "localhost" || host.endsWith(".localhost") || host === "[::1]" || /^127(?:\.\d+){3}$/.test(host)

/** Parses the URL of a WebSocket. The failure describes what is wrong with it. */
export const parseUrl = (text: string): Result.Result<Address, string> => {
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined || url.protocol !== "ws:" && url.protocol !== "wss:") {
    return Result.fail("the URL is not one of a WebSocket. Pass one such as `ws://127.0.0.1:4500` or `wss://host/path`")
  }
  if (url.username !== "" || url.password !== "") {
    return Result.fail("the URL contains a user name or a password, which the server ignores. Pass the option `token`")
  }
  if (url.hash !== "") return Result.fail("the URL contains a fragment (`#`). Remove it")
  return Result.succeed({
    url: text,
    shown: `${url.protocol}//${url.host}${url.pathname === "/" ? "" : url.pathname}`,
    isPrivate: url.protocol === "wss:" || isLoopback(url.hostname),
    isUnix: false
  })
}

/** The path at which `codex app-server --listen unix://` listens. `undefined` if the environment names no home. */
const defaultPath = (): string | undefined => {
  const { CODEX_HOME, HOME, USERPROFILE } = hostProcess?.env ?? {}
  const user = HOME ?? USERPROFILE
  const home = CODEX_HOME ?? (user === undefined ? undefined : `${user}/.codex`)
  return home === undefined ? undefined : `${home}/app-server-control/app-server-control.sock`
}

/**
 * Makes the address of a Unix socket, `ws+unix:PATH:/`. A URL escapes some characters, and a WebSocket does not decode them, so a path with
 * one of these cannot be opened.
 */
export const parsePath = (path: string | undefined = defaultPath()): Result.Result<Address, string> => {
  if (path === undefined) {
    return Result.fail("the default path is unknown, because neither `CODEX_HOME` nor `HOME` is set. Pass the path")
  }
  if (!path.startsWith("/")) return Result.fail(`the path \`${path}\` is not absolute. Pass an absolute path`)
  const url = `ws+unix:${path}:/`
  if (path.includes(":") || !URL.canParse(url) || new URL(url).pathname !== `${path}:/`) {
    return Result.fail(
      `the path \`${path}\` contains a character that a URL escapes, such as a space. Pass the path of a symbolic link ` +
        "to the socket or to its directory"
    )
  }
  return Result.succeed({ url, shown: `unix://${path}`, isPrivate: true, isUnix: true })
}
