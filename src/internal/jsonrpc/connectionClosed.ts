/** The error of a connection that this client or its transport has ended. */
import { type AppServerError, ConnectionClosed, make as appServerError } from "../../AppServerError.ts"

export const connectionClosed = (
  description: string,
  failure: { readonly cause?: unknown } = {}
): AppServerError =>
  appServerError(
    new ConnectionClosed({ description, exitCode: undefined, signal: undefined, stderrTail: "", ...failure })
  )

export const scopeClosed = (): AppServerError => connectionClosed("the scope of the connection was closed")
