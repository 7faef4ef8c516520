import { defineConfig, mergeConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** `npm run test:faults`: what takes minutes, and the quick ones of its kind again, far more often. */
export default mergeConfig(
  config,
  defineConfig({
    test: {
      include: ["test/faults/*.faults.ts"],
      testTimeout: 300_000,
      maxWorkers: 1,
      execArgv: ["--expose-gc"],
      env: { FAULT_RUNS: "5000" }
    }
  })
)
