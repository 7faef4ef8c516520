import { assert, describe, it } from "@effect/vitest"
import { assertSuccess } from "@effect/vitest/utils"
import { Metadata } from "effect-codex"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"

const identity = (response: Parameters<typeof Metadata.fromInitialize>[0]) =>
  Result.map(Metadata.fromInitialize(response), ({ serverName, serverVersion }) => [serverName, serverVersion])

describe("Metadata", () => {
  it("reads the version of the real server from its user agent", () => {
    assertSuccess(identity({ userAgent: "client/0.169.0 (Debian 12.0.0; x86_64) term (client; 1.2.3)" }), [
      "client",
      "0.169.0"
    ])
    assertSuccess(identity({ userAgent: "my client/0.170.0-alpha.1 (Mac OS 26; arm64) xterm (my client; 2)" }), [
      "my client",
      "0.170.0-alpha.1"
    ])
    assertSuccess(identity({ userAgent: "org/client/0.169.0 (Debian 12) t (org/client; 1)" }), [
      "org/client",
      "0.169.0"
    ])
  })

  it("reads a user agent of the form name/version or name version", () => {
    assertSuccess(identity({ userAgent: "codex-cli/1.2.3" }), ["codex-cli", "1.2.3"])
    assertSuccess(identity({ userAgent: "codex-cli 1.2.3" }), ["codex-cli", "1.2.3"])
    assertSuccess(identity({ userAgent: "  codex-cli   1.2.3 beta " }), ["codex-cli", "1.2.3 beta"])
  })

  it("prefers each part of `serverInfo` to the user agent", () => {
    const userAgent = "codex-cli/1.2.3"
    assertSuccess(identity({ userAgent, serverInfo: { name: "server", version: "9" } }), ["server", "9"])
    assertSuccess(identity({ userAgent, serverInfo: { name: " ", version: "9" } }), ["codex-cli", "9"])
    assertSuccess(identity({ userAgent, serverInfo: { name: "server", version: null } }), ["server", "1.2.3"])
    assertSuccess(identity({ userAgent, serverInfo: null }), ["codex-cli", "1.2.3"])
  })

  it("keeps the other fields of the response", () => {
    assertSuccess(
      Metadata.fromInitialize({ userAgent: " a/1 ", codexHome: "/home", platformFamily: "unix", platformOs: "linux" }),
      {
        userAgent: "a/1",
        serverName: "a",
        serverVersion: "1",
        codexHome: "/home",
        platformFamily: "unix",
        platformOs: "linux"
      }
    )
  })

  it("fails with the names of all three parts when one is missing", () => {
    const missing = [
      {},
      { userAgent: "  " },
      { userAgent: "nameless" },
      { userAgent: "/1.2.3" },
      { userAgent: "name/" },
      { serverInfo: { name: "server", version: "1" } }
    ]
    for (const response of missing) {
      const failed = Metadata.fromInitialize(response)
      assert(Result.isFailure(failed))
      for (const part of ["userAgent", "serverName", "serverVersion"]) assert.include(failed.failure.message, part)
    }
    const failed = Metadata.fromInitialize({ userAgent: "nameless" })
    assert(Result.isFailure(failed))
    assert.deepInclude(failed.failure, { userAgent: "nameless", serverName: "nameless", serverVersion: undefined })
  })

  it.prop("never throws, and never returns an empty part", { userAgent: Schema.String }, ({ userAgent }) => {
    const read = Metadata.fromInitialize({ userAgent })
    if (Result.isFailure(read)) return
    assert.notStrictEqual(read.success.serverName.trim(), "")
    assert.notStrictEqual(read.success.serverVersion.trim(), "")
  })
})
