import { defineConfig } from "vitest/config"

export default defineConfig({
  // Self-references (`effect-codex/...`) resolve to the sources, as they do for the examples.
  resolve: { conditions: ["@effect-codex/source"] },
  ssr: { resolve: { conditions: ["@effect-codex/source"] } },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    maxWorkers: 2
  }
})
