import { defineConfig } from "vitest/config"
import config from "./vitest.config.ts"

/** `npm run test:cluster`: a cluster of processes on PostgreSQL, which takes some minutes. */
export default defineConfig({
  ...config,
  test: {
    ...config.test,
    include: ["test/cluster/*.cluster.ts"],
    testTimeout: 600_000,
    hookTimeout: 60_000,
    maxWorkers: 1
  }
})
