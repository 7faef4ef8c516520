import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

export default defineConfig({
  // Self-references (`effect-codex/...`) resolve to the sources, as they do for the examples.
  resolve: { conditions: ["@effect-codex/source"] },
  ssr: { resolve: { conditions: ["@effect-codex/source"] } },
  test: {
    include: ["test/**/*.test.ts"],
    testTimeout: 30_000,
    // The programs that tests start compile the sources once.
    env: { NODE_COMPILE_CACHE: fileURLToPath(new URL("node_modules/.cache/node", import.meta.url)) },
    // One more than the cores of the machine that CI has, as many tests wait for a process.
    maxWorkers: 3,
    // Each worker imports the modules once. No test relies on modules of its own.
    isolate: false,
    // Each app-server says this at its start on a machine without it, and no test is about it.
    onConsoleLog: (log) => !log.includes("could not find bubblewrap on PATH")
  }
})
