/* db: statements, rows and transactions over a database engine. Knows no table.
 *
 * The seam to an engine is cut at statements, so that no rule of the registry is written twice:
 * SQL is written once with $1 parameters (bound by name, so $2 may stand before $1) in the common
 * subset of SQLite and PostgreSQL. Engines are a table of functions (db_int.h): db_sqlite.c and
 * db_postgres.c.
 *
 * SQLite: many readers, one writer. A write transaction is exclusive from its beginning;
 * transactions that commit at the same time share one flush (group commit): each is its own
 * savepoint inside a common engine transaction, all of a group fail together when the flush fails,
 * and each of them is told so. So a thread in db_commit may wait for the write transactions that
 * began after its own: hold no lock there that is taken inside of one.
 * PostgreSQL: one pool of connections for all. Write transactions run beside each other at READ
 * COMMITTED: each statement sees what was committed before it, so what a transaction has looked at
 * and relies on is locked by db_lock. Each statement is a round trip, and so is the commit:
 * db_queue and db_last save some, and change nothing on SQLite. A connection that broke is opened
 * again, by itself where nothing was under way; a database that is away makes every call fail with
 * BUSY, within the patience given, until it is back.
 * Threads: any may call; a struct db_conn belongs to one thread from its check-out to its end. */
#ifndef HOLDFAST_DB_H
#define HOLDFAST_DB_H

#include "base/base.h"

struct db;      /* an open database: engine, connections */
struct db_conn; /* a connection that is checked out, reading or writing */
struct db_stmt; /* a prepared statement of that connection, with its parameters and its row */

struct db_options {
    const char *path; /* of the SQLite file; its folder exists */
    const char *url;  /* postgres://…, as libpq reads it; then `path` is not used. NULL: SQLite */
    unsigned readers; /* connections, opened when first needed; 1..256. SQLite: those for reading */
    int64_t busy_us;  /* how long to wait for a connection before ERR_BUSY; of PostgreSQL, also for
                         each of its answers */
    int64_t start_us; /* how long db_open waits for a PostgreSQL that is starting; 0: 30 s */
    void (*observe)(void *context, bool write, int64_t us); /* may be NULL; duration of each
                                                               transaction, from check-out to end */
    void *observe_context;                                  /* borrowed until db_close */
};

/* Opens or creates the SQLite database: WAL, synchronous=FULL, foreign keys on. It takes no lock
 * against other processes; whoever owns the folder does. Of PostgreSQL it opens a first connection,
 * and waits for a server that is still starting.
 * Errors: CORRUPT (not a database, malformed: `say` names the path and what to do), IO, FULL, BUSY
 * (locked by another process; the server does not answer), DENIED (the server refuses the user),
 * INVALID (the URL), UNSUPPORTED (the server is too old). Never says the password.
 * ret: owned, end with db_close. */
int db_open(const struct db_options *options, struct db **ret, struct err *err) MUST_CHECK;
/* Ends all connections, with a WAL checkpoint. No connection may be checked out. Takes NULL. */
void db_close(struct db *db);
/* Whether statements wait for a network: then they belong on a worker thread. */
bool db_is_remote(const struct db *db);
/* The database's clock, without asking it: all nodes over one database agree about it within
 * milliseconds. For leases. */
struct wall_us db_now(const struct db *db);

/* Checks a connection out for reading: each statement sees one consistent state; several
 * statements see the same one only between db_snapshot and the end. End with db_end.
 * Errors: BUSY, IO. */
int db_read(struct db *db, struct db_conn **ret, struct err *err) MUST_CHECK;
int db_snapshot(struct db_conn *conn, struct err *err) MUST_CHECK;
/* Begins a write transaction. It must end with db_commit or db_end, which rolls back. A thread that
 * has a connection must not wait for another one: all may have one. PostgreSQL ends a transaction
 * in which nothing happens for busy_us. Errors: BUSY (after busy_us), IO, FULL. */
int db_write(struct db *db, struct db_conn **ret, struct err *err) MUST_CHECK;
/* Until the transaction ends, whoever else locks `key` waits, or, when both share it, does not.
 * Inside a write transaction, before what it protects is looked at; in the order of keys. Engines
 * with one writer need nothing of it. It is queued, as by db_queue: the statement that follows
 * waits for the lock, and has it when it begins. Errors: BUSY, AGAIN. */
int db_lock(struct db_conn *conn, int64_t key, bool shared, struct err *err) MUST_CHECK;
/* The next statement that is not queued is the last one of the write transaction: where each is a
 * round trip, COMMIT goes with it. When it fails nothing was kept, or it says UNSURE, as db_commit
 * would. When it succeeds db_commit follows and nothing else, no notice either: whether all was
 * kept is for that to say, and to roll back is too late. So a statement whose outcome decides
 * whether to commit is not the last one. */
void db_last(struct db_conn *conn);
/* Of a write transaction that PostgreSQL may lose, as a whole, when it crashes within the next
 * second: its commit does not wait for the disk. And one that may be done twice: when the
 * connection breaks while it is committing that is AGAIN, not UNSURE. For leases. */
void db_relax(struct db_conn *conn);
/* 0: durable. -1: nothing of the transaction was kept, unless the error is UNSURE: the connection
 * broke while it was committing. Ends the connection's check-out either way; its statements are
 * done by then. Errors: FULL, IO, BUSY, CONFLICT (a deferred constraint), AGAIN, UNSURE.
 * AGAIN, from here and from the statements of a write transaction: it lost against another one, or
 * its connection broke: nothing was kept, and the whole of it may be run again at once. */
int db_commit(struct db_conn *conn, struct err *err) MUST_CHECK;
/* Ends a reading connection, rolls a writing one back; its statements are done. Takes NULL. */
void db_end(struct db_conn *conn);

/* Runs `body` in a write transaction, with call->db, and commits it. When it fails with AGAIN it is
 * run again from its beginning, a few times with growing pauses; `body` must bear that. -1 from
 * `body` rolls back. */
int db_transact(struct call *call, struct db *db, int (*body)(struct call *call, void *context),
                void *context) MUST_CHECK;

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
/* The next row. *ret_row false: no more rows. PostgreSQL's rows are all in memory until db_done, so
 * ask for many with a LIMIT. Errors: CONFLICT (a unique or foreign key), BUSY, IO,
 * FULL, CORRUPT, TOO_LARGE. A write transaction outlives a failed statement unless the engine gave
 * it up; then all that follows in it fails with the same error. */
int db_step(struct db_stmt *stmt, bool *ret_row, struct err *err) MUST_CHECK;
/* Steps to the end, of at most `limit` rows, and has `read` look at each: the statement stands at
 * row i, counted from 0. -1 from `read`, with call->err, ends it. */
int db_read_rows(struct call *call, struct db_stmt *stmt, size_t limit,
                 int (*read)(struct call *call, struct db_stmt *stmt, void *rows, size_t i),
                 void *rows, size_t *ret_n) MUST_CHECK;
/* Runs a statement that gives no rows and ends it. */
int db_run(struct db_stmt *stmt, struct err *err) MUST_CHECK;
/* The same in a write transaction, for a statement about whose outcome nobody asks, not even how
 * many rows it changed. It runs before any that follows, but may be sent with that one, or with the
 * commit: then it is that one which fails, with its error, and nothing behind it was run. */
int db_queue(struct db_stmt *stmt, struct err *err) MUST_CHECK;
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

/* ---- Between nodes ---- */

/* Tells every node over the same database, this one included, when and only when the transaction
 * commits. `payload` is text, at most 1000 bytes. SQLite: this process is all there is. */
int db_notify(struct db_conn *conn, struct str payload, struct err *err) MUST_CHECK;
/* Calls `told` with every payload, from one thread of its own, from here to db_close; with one
 * whose p is NULL when some may have been missed. It must not wait. Once for each db. SQLite: on
 * the committing thread, before db_commit returns. */
int db_listen(struct db *db, void (*told)(void *context, struct str payload), void *context,
              struct err *err) MUST_CHECK;
/* Whether what was committed anywhere a second ago has been told. */
bool db_is_told(const struct db *db);
/* Takes the database for this process until db_close: shared with others that share it, or alone.
 * SQLite: nothing; whoever owns the folder does. Errors: BUSY. */
int db_guard(struct db *db, bool alone, struct err *err) MUST_CHECK;

/* ---- Schema ---- */

/* One numbered, embedded migration; never edited after it shipped. */
struct db_migration {
    int version;        /* 1, 2, 3 … without gaps */
    const char *sqlite; /* static: statements of each engine's dialect */
    const char *postgres;
};
/* Brings the schema to the newest version, each migration in its own transaction, and keeps count
 * in table schema_version. Processes that start together do it once: they wait for each other.
 * Errors: UNSUPPORTED when the database is newer than this program (names both versions), CORRUPT,
 * IO, FULL. */
int db_migrate(struct db *db, const struct db_migration *migrations, size_t n,
               struct err *err) MUST_CHECK;
/* The schema's version, changing nothing; 0: db_migrate has not been here. */
int db_version(struct db *db, int64_t *ret, struct err *err) MUST_CHECK;
/* Reads and writes nothing but proves that the engine answers. */
int db_ping(struct db *db, struct err *err) MUST_CHECK;
/* The engine's own check of its files, for fsck. Calls `report` for each complaint. PostgreSQL: the
 * pages whose checksum the server found wrong so far, if it keeps any, and every index against its
 * table, if the database has the extension amcheck; the log says which of both is missing.
 * Errors: IO, CORRUPT. */
int db_verify(struct db *db, void (*report)(void *context, const char *complaint), void *context,
              struct err *err) MUST_CHECK;

#endif
