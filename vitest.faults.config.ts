import { defineConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** `npm run test:faults`: what takes minutes, and the quick ones of its kind again, far more often. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include: [
      "test/faults/*.{faults,test}.ts",
      "test/{editor,examples,reconnect,runOnce}.test.ts",
      "test/ai/{chat,interruption}.test.ts",
      "test/internal/approvals/*.test.ts",
      "test/testing/wireAgreement.test.ts"
    ],
    testTimeout: 300_000,
    maxWorkers: 1,
    execArgv: ["--expose-gc"],
    env: { ...config.test?.env, FAULT_RUNS: "5000" }
  }
})
