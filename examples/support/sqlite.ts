/**
 * A `SqlClient` on `node:sqlite`, as small as the storage of workflows needs it. A program uses `@effect/sql-sqlite-node`, which also
 * streams, and loads extensions.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Reactivity from "effect/reactivity/Reactivity"
import * as Semaphore from "effect/Semaphore"
import * as SqlClient from "effect/sql/SqlClient"
import type { Connection } from "effect/sql/SqlConnection"
import { classifySqliteError, SqlError } from "effect/sql/SqlError"
import * as Statement from "effect/sql/Statement"
import * as Stream from "effect/Stream"
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite"

const toSqlError = (cause: unknown): SqlError => {
  const operation = "execute"
  const errno = (cause as { readonly errcode?: number }).errcode
  const reason = classifySqliteError(Object.assign(cause as Error, { errno }), {
    message: "The statement failed",
    operation
  })
  return new SqlError({ reason })
}

/** Runs statements on a database. */
const makeConnection = (database: DatabaseSync): Connection => {
  const statements = new Map<string, StatementSync>()
  const prepare = (sql: string): StatementSync => {
    const statement = statements.get(sql) ?? database.prepare(sql)
    statements.set(sql, statement)
    return statement
  }
  const run = <A>(sql: string, use: (statement: StatementSync) => A, asArrays = false) =>
    Effect.try({
      try: () => {
        const statement = prepare(sql)
        statement.setReturnArrays(asArrays)
        return use(statement)
      },
      catch: toSqlError
    })
  const all = (sql: string, params: ReadonlyArray<unknown>, asArrays = false) =>
    run(sql, (statement) => statement.all(...params as ReadonlyArray<SQLInputValue>), asArrays)
  const execute: Connection["execute"] = (sql, params, transform) =>
    Effect.map(all(sql, params), (rows) => transform === undefined ? rows : transform(rows))
  const executeValues: Connection["executeValues"] = (sql, params) =>
    all(sql, params, true) as unknown as ReturnType<Connection["executeValues"]>
  return {
    execute,
    executeRaw: (sql, params) => run(sql, (statement) => statement.run(...params as ReadonlyArray<SQLInputValue>)),
    executeValues,
    executeValuesUnprepared: executeValues,
    executeUnprepared: execute,
    executeStream: () => Stream.die(new Error("This client does not stream"))
  }
}

/** Opens the database of a file, and closes it with the scope of the layer. */
export const layer = (file: string): Layer.Layer<SqlClient.SqlClient> =>
  Layer.effect(
    SqlClient.SqlClient,
    Effect.gen(function*() {
      const database = yield* Effect.acquireRelease(
        Effect.sync(() => new DatabaseSync(file)),
        (database) => Effect.sync(() => database.close())
      )
      database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; PRAGMA synchronous = NORMAL")
      const { acquirer, borrower, onCommitFailure, transactionAcquirer } = SqlClient.makeSqliteAcquirers({
        connection: Effect.succeed(makeConnection(database)),
        semaphore: yield* Semaphore.make(1),
        isTransaction: () => database.isTransaction
      })
      return yield* SqlClient.make({
        acquirer,
        borrower,
        transactionAcquirer,
        onCommitFailure,
        compiler: Statement.makeCompilerSqlite(),
        driver: "sqlite-node",
        beginTransaction: "BEGIN IMMEDIATE",
        releaseSavepoint: (name) => `RELEASE SAVEPOINT ${name}`,
        spanAttributes: []
      })
    })
  ).pipe(Layer.provide(Reactivity.layer))
