import { assert, describe, it } from "@effect/vitest"
import manifest from "../package.json" with { type: "json" }
import { packageVersion } from "../src/internal/version.ts"

// `npm run check:package` checks the built package.
describe("Package", () => {
  it("exports the version of package.json", () => {
    assert.strictEqual(packageVersion, manifest.version)
  })
})
