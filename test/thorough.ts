/** Whether this is `npm run test:faults`, which repeats what `npm test` samples. */
export const isThorough = process.env["FAULT_RUNS"] !== undefined
