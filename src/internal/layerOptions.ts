/**
 * The options of the layers that start a server and connect to it. One object may have the options of both, so each layer accepts the names
 * of the other.
 */
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Kind from "./options.ts"

/** The options of `StdioTransport`. */
export const processKinds = {
  codexPath: Kind.string,
  args: Kind.strings,
  config: Kind.object,
  cwd: Kind.string,
  inheritEnv: Kind.strings,
  env: Kind.recordOf({
    expected: "a string or a Redacted string",
    is: (value) => Predicate.isString(value) || Redacted.isRedacted(value) && Predicate.isString(Redacted.value(value))
  }),
  maxLineBytes: Kind.positive,
  closeTimeout: Kind.duration,
  killTimeout: Kind.duration
}

/** The options of `AppServer`. */
export const connectionKinds = {
  clientInfo: Kind.object,
  experimentalApi: Kind.boolean,
  requestAttestation: Kind.boolean,
  allowUnsupportedServer: Kind.boolean,
  optOutNotificationMethods: Kind.strings,
  requestTimeout: Kind.duration,
  maxInFlight: Kind.positive,
  restart: {
    expected: "a boolean or a Schedule",
    is: (value: unknown) => Predicate.isBoolean(value) || Schedule.isSchedule(value)
  }
}

export const processNames: ReadonlyArray<string> = Object.keys(processKinds)

export const connectionNames: ReadonlyArray<string> = Object.keys(connectionKinds)
