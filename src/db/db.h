/* db: statements, rows and transactions over a database engine. Knows no table.
 *
 * The seam to an engine is cut at statements, so that no rule of the registry is written twice:
 * SQL is written once with $1 parameters (bound by name, so $2 may stand before $1) in the common
 * subset of SQLite and PostgreSQL. Engines are a table of functions (db_int.h); db_sqlite.c is one.
 *
 * Many readers, one writer. A write transaction is exclusive from its beginning; db_commit returns
 * when it is durable. Transactions that commit at the same time share one flush (group commit):
 * each is its own savepoint inside a common engine transaction, all of a group fail together when
 * the flush fails, and each of them is told so. So a thread in db_commit may wait for the write
 * transactions that began after its own: hold no lock there that is taken inside of one.
 * Threads: any may call; a struct db_conn belongs to one thread from its check-out to its end. */
#ifndef HOLDFAST_DB_H
#define HOLDFAST_DB_H

#include "base/base.h"

struct db;      /* an open database: engine, connections */
struct db_conn; /* a connection that is checked out, reading or writing */
struct db_stmt; /* a prepared statement of that connection, with its parameters and its row */

struct db_options {
    const char *path; /* of the SQLite file; its folder exists */
    unsigned readers; /* reading connections, opened when first needed; 1..256 */
    int64_t busy_us;  /* how long to wait for a connection before ERR_BUSY */
    void (*observe)(void *context, bool write, int64_t us); /* may be NULL; duration of each
                                                               transaction, from check-out to end */
    void *observe_context;                                  /* borrowed until db_close */
};

/* Opens or creates the database: WAL, synchronous=FULL, foreign keys on. It takes no lock against
 * other processes; whoever owns the folder does.
 * Errors: CORRUPT (not a database, malformed: `say` names the path and what to do), IO, FULL, BUSY
 * (locked by another process). ret: owned, end with db_close. */
int db_open(const struct db_options *options, struct db **ret, struct err *err) MUST_CHECK;
/* Ends all connections, with a WAL checkpoint. No connection may be checked out. Takes NULL. */
void db_close(struct db *db);

/* Checks a connection out for reading: each statement sees one consistent state; several
 * statements see the same one only between db_snapshot and the end. End with db_end.
 * Errors: BUSY, IO. */
int db_read(struct db *db, struct db_conn **ret, struct err *err) MUST_CHECK;
int db_snapshot(struct db_conn *conn, struct err *err) MUST_CHECK;
/* Begins a write transaction. It must end with db_commit or db_end, which rolls back.
 * Errors: BUSY (after busy_us), IO, FULL. */
int db_write(struct db *db, struct db_conn **ret, struct err *err) MUST_CHECK;
/* 0: durable. -1: nothing of the transaction was kept. Ends the connection's check-out either way;
 * its statements are done by then. Errors: FULL, IO, BUSY, CONFLICT (a deferred constraint). */
int db_commit(struct db_conn *conn, struct err *err) MUST_CHECK;
/* Ends a reading connection, rolls a writing one back; its statements are done. Takes NULL. */
void db_end(struct db_conn *conn);

/* Prepares `sql`, one statement, or takes it from the connection's cache, keyed by the pointer:
 * `sql` is static. Parameters start as NULL. End with db_done before the same SQL is used again on
 * this connection. Never NULL: a failure (broken SQL is a bug and aborts; an engine that fails is
 * remembered) is reported by the first db_step. */
struct db_stmt *db_stmt(struct db_conn *conn, const char *sql);
/* `parameter` counts from 1, to 64. Bytes are borrowed until db_done. A parameter that the
 * statement does not have aborts. */
void db_bind_int(struct db_stmt *stmt, int parameter, int64_t value);
void db_bind_text(struct db_stmt *stmt, int parameter, struct str value);
void db_bind_blob(struct db_stmt *stmt, int parameter, struct str value);
/* The next row. *ret_row false: no more rows. Errors: CONFLICT (a unique or foreign key), BUSY, IO,
 * FULL, CORRUPT, TOO_LARGE. A write transaction outlives a failed statement unless the engine gave
 * it up; then all that follows in it fails with the same error. */
int db_step(struct db_stmt *stmt, bool *ret_row, struct err *err) MUST_CHECK;
/* Runs a statement that gives no rows and ends it. */
int db_run(struct db_stmt *stmt, struct err *err) MUST_CHECK;
/* Columns of the current row count from 0; NULL reads as 0, empty. Text and bytes are borrowed
 * until the next db_step or db_done. */
int64_t db_int(struct db_stmt *stmt, int column);
struct str db_text(struct db_stmt *stmt, int column);
struct str db_blob(struct db_stmt *stmt, int column);
bool db_is_null(struct db_stmt *stmt, int column);
/* Rows that the last insert, update or delete of this connection changed. */
int64_t db_changed(struct db_conn *conn);
/* A statement that is done already stays so. */
void db_done(struct db_stmt *stmt);

static inline void db_stmt_done_auto(struct db_stmt **stmt)
{
    if (*stmt != NULL)
        db_done(*stmt);
}
static inline void db_end_auto(struct db_conn **conn)
{
    db_end(*conn);
}
#define auto_stmt __attribute__((cleanup(db_stmt_done_auto))) struct db_stmt *
#define auto_conn __attribute__((cleanup(db_end_auto))) struct db_conn *

/* One numbered, embedded migration; never edited after it shipped. */
struct db_migration {
    int version;     /* 1, 2, 3 … without gaps */
    const char *sql; /* static: statements of the engine's dialect */
};
/* Brings the schema to the newest version, each migration in its own transaction, and keeps count
 * in table schema_version. Errors: UNSUPPORTED when the database is newer than this program (names
 * both versions), CORRUPT, IO, FULL. */
int db_migrate(struct db *db, const struct db_migration *migrations, size_t n,
               struct err *err) MUST_CHECK;
/* Reads and writes nothing but proves that the engine answers. */
int db_ping(struct db *db, struct err *err) MUST_CHECK;
/* The engine's own check of its files, for fsck. Calls `report` for each complaint.
 * Errors: IO, CORRUPT. */
int db_verify(struct db *db, void (*report)(void *context, const char *complaint), void *context,
              struct err *err) MUST_CHECK;

#endif
