/** The quick tests of faults, with as many runs as the configuration says. */
import "./cutPoints.test.ts"
import "./fuzz.test.ts"
