/**
 * The options of the layers that start a server, or attach to one, and connect to it. One object may have the options of both, so each layer accepts the names
 * of the other.
 */
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import * as Kind from "./options.ts"

/** Whether a value is a Redacted string. */
const isRedactedString = (value: unknown): boolean =>
  Redacted.isRedacted(value) && Predicate.isString(Redacted.value(value))

export const redactedString: Kind.Kind = { expected: "a Redacted string", is: isRedactedString }

/** The options of `StdioTransport`. */
export const processKinds = {
  codexPath: {
    expected: "a string, or an array of strings that is not empty",
    is: (value: unknown) =>
      Kind.string.is(value) || Kind.strings.is(value) && (value as ReadonlyArray<string>).length > 0
  },
  args: Kind.strings,
  config: Kind.object,
  cwd: Kind.string,
  inheritEnv: Kind.strings,
  env: Kind.recordOf({
    expected: "a string or a Redacted string",
    is: (value) => Predicate.isString(value) || isRedactedString(value)
  }),
  maxLineBytes: Kind.positive,
  closeTimeout: Kind.duration,
  killTimeout: Kind.duration
}

/** The options of `SocketTransport`. */
export const socketKinds = {
  token: {
    expected: "a Redacted string, or an Effect of one",
    is: (value: unknown) => isRedactedString(value) || Effect.isEffect(value)
  },
  openTimeout: Kind.duration,
  keepAlive: Kind.duration,
  maxMessageBytes: Kind.positive,
  closeTimeout: Kind.duration
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

/** The names of the options of all transports. */
export const transportNames: ReadonlyArray<string> = Object.keys({ ...processKinds, ...socketKinds })

export const connectionNames: ReadonlyArray<string> = Object.keys(connectionKinds)
