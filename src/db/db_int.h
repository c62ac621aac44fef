/* Inside db: the seam to an engine, and what the engine-neutral files share.
 *
 * An engine is a table of functions over two things of its own, a link (one connection) and a
 * cursor (one prepared statement). It knows neither pool nor group: a link is used by one thread at
 * a time, and its caller sees to that.
 *
 * There are two kinds of engine. A local one has one writer: its write transactions go through
 * db_group.c, the pool (db_pool.c) is for readers, and what is told to other nodes (db_notify)
 * stays in this process. A remote one has a server, whose links all write beside each other: they
 * are of the pool, and between nodes the server tells, locks and keeps the time. */
#ifndef HOLDFAST_DB_INT_H
#define HOLDFAST_DB_INT_H

#include "db/db.h"

struct db_link;
struct db_cursor;
struct db_server; /* what the links of one remote database share */

enum db_role {
    DB_READER,
    DB_WRITER, /* the first link that is made; creates the database and checks that it is ours */
    DB_TIDIER, /* for `tidy` alone */
};

struct db_engine {
    const struct db_remote *remote; /* NULL: a local engine */
    const char *find_schema;        /* SQL that gives a row when table schema_version is there */

    /* `server`: of a remote engine, borrowed. ret: owned, end with disconnect. Errors: as db_open.
     */
    int (*connect)(const struct db_options *options, struct db_server *server, enum db_role role,
                   struct db_link **ret, struct err *err);
    void (*disconnect)(struct db_link *link);

    /* From begin_read to end_read all statements see one state. */
    int (*begin_read)(struct db_link *link, struct err *err);
    void (*end_read)(struct db_link *link);

    /* A write transaction; of a local engine exclusive from its beginning. `wait_us` is for other
     * processes. */
    int (*begin)(struct db_link *link, int64_t wait_us, struct err *err);
    /* 0: durable. -1: rolled back, or, from a remote engine, UNSURE. Over either way. `notices` are
     * texts that each end with NUL; only a remote engine is given any, and tells them. */
    int (*commit)(struct db_link *link, struct str notices, struct err *err);
    void (*rollback)(struct db_link *link);

    /* For groups, hence for local engines alone: */
    /* False once the engine has given the transaction up by itself, after a full disk, say. */
    bool (*in_transaction)(struct db_link *link);
    /* A part of the transaction that `undo` takes back alone. `release` is the part's own commit:
     * it fails when the part leaves a deferred constraint broken, so that the common commit cannot
     * fail because of one part. */
    int (*save)(struct db_link *link, struct err *err);
    int (*release)(struct db_link *link, struct err *err);
    int (*undo)(struct db_link *link, struct err *err);

    /* Any number of statements, without parameters and rows. */
    int (*script)(struct db_link *link, const char *sql, struct err *err);
    /* ret: owned, end with finalize. Broken SQL aborts. */
    int (*prepare)(struct db_link *link, const char *sql, struct db_cursor **ret, struct err *err);
    void (*finalize)(struct db_cursor *cursor);
    /* What cannot be bound (too large) fails at the next step. */
    void (*bind_int)(struct db_cursor *cursor, int parameter, int64_t value);
    void (*bind_text)(struct db_cursor *cursor, int parameter, struct str value);
    void (*bind_blob)(struct db_cursor *cursor, int parameter, struct str value);
    int (*step)(struct db_cursor *cursor, bool *ret_row, struct err *err);
    /* Ends the run of the statement; its parameters are NULL again. */
    void (*reset)(struct db_cursor *cursor);
    int64_t (*column_int)(struct db_cursor *cursor, int column);
    struct str (*column_text)(struct db_cursor *cursor, int column);
    struct str (*column_blob)(struct db_cursor *cursor, int column);
    bool (*column_is_null)(struct db_cursor *cursor, int column);
    int64_t (*changed)(struct db_link *link);

    int (*ping)(struct db_link *link, struct err *err);
    int (*verify)(struct db_link *link, void (*report)(void *context, const char *complaint),
                  void *context, struct err *err);

    /* Of local engines: house-keeping that waits for the disk, done beside the writer by a thread
     * of its own. wants_tidy: asked of the writing link after each commit. tidy: on a link of role
     * TIDIER; *ret_again asks to be run once more while nobody writes. */
    bool (*wants_tidy)(struct db_link *link);
    int (*tidy)(struct db_link *link, bool *ret_again, struct err *err);
};

/* What only a server between processes can do. */
struct db_remote {
    /* Waits for a server that is starting. ret: owned. Errors: as db_open. */
    int (*open)(const struct db_options *options, struct db_server **ret, struct err *err);
    /* Its links are gone by now; afterwards `told` is not called any more. */
    void (*close)(struct db_server *server);
    /* Before each check-out of a link from the pool: connects it again when it is broken. Fails at
     * once, with BUSY, while the server is known to be away. */
    int (*wake)(struct db_link *link, struct err *err);
    /* Of a write transaction: runs the cursor with what is waited for next, or with the commit. */
    int (*queue)(struct db_cursor *cursor, struct err *err);
    /* The next cursor that steps commits, these notices too, which are borrowed until then.
     * `commit` is called still. */
    void (*last)(struct db_link *link, struct str notices);
    void (*relax)(struct db_link *link); /* see db_relax */
    /* Queued. */
    int (*lock)(struct db_link *link, int64_t key, bool shared, struct err *err);
    /* Inside a transaction, for its rest: nobody else passes here, and nothing is too slow. */
    int (*lock_schema)(struct db_link *link, struct err *err);
    void (*listen)(struct db_server *server, void (*told)(void *context, struct str payload),
                   void *context);
    bool (*is_told)(const struct db_server *server);
    int (*guard)(struct db_server *server, bool alone, struct err *err);
    struct wall_us (*now)(const struct db_server *server);
};

extern const struct db_engine db_sqlite;
extern const struct db_engine db_postgres;

enum db_stmt_state { STMT_IDLE, STMT_BOUND, STMT_ROW, STMT_OVER };

/* Lives as long as its connection: the program's texts are few, so nothing is ever evicted. */
struct db_stmt {
    struct db_conn *conn;
    const char *sql;          /* static; the key of the cache */
    struct db_stmt *next;     /* in its bucket */
    struct db_cursor *cursor; /* owned; NULL when the engine could not prepare it */
    enum db_stmt_state state;
    struct err *failure; /* owned; the failure that every db_step reports until db_done */
};

#define DB_BUCKETS_LOG2 6

struct db_conn {
    struct db *db;
    struct db_link *link; /* owned */
    bool writes;
    bool snapshot;            /* between begin_read and end_read */
    bool last;                /* the next statement of the transaction is its last */
    bool sealed;              /* that has run */
    unsigned open_statements; /* not IDLE */
    struct mono_us begun;     /* the check-out, when somebody observes */
    struct buf notices;       /* of this transaction; each ends with NUL */
    struct db_conn *next;     /* in the list of idle ones */
    struct db_stmt *statements[1 << DB_BUCKETS_LOG2];
};

/* The one writing connection and its group of transactions: see db_group.c. */
struct db_group {
    struct db_conn conn;
    pthread_mutex_t mutex;      /* guards what stands below */
    pthread_cond_t finished;    /* a group has ended */
    bool held;                  /* a thread owns `conn` and the fields of the owner */
    struct db_waiter *first;    /* the queue for `conn`, in order of arrival */
    struct db_waiter *last;     /* only when first is not NULL */
    bool tidy_due;              /* the tidier has work */
    bool stop;                  /* the tidier shall end */
    pthread_cond_t tidy_wanted; /* one of the two became true */
    pthread_t tidier;

    /* Of the owner: */
    bool open;                 /* the engine's transaction has begun */
    bool doomed;               /* the engine gave it up; `doom` says why */
    struct db_member *members; /* released, asleep until the common commit */
    unsigned n_members;
    struct mono_us asleep_since; /* the first of them */
    struct err doom;
};

/* Connections for whoever comes: see db_pool.c. */
struct db_pool {
    pthread_mutex_t mutex;   /* guards what stands below */
    pthread_cond_t returned; /* a connection came back, or its place is free */
    struct db_conn *idle;    /* owned; the latest first, whose caches are warm */
    unsigned n;              /* idle and checked out */
    unsigned waiting;        /* threads waiting for `returned` */
};

struct db {
    const struct db_engine *engine;
    struct db_options options; /* its path or its URL is the one below */
    char *place;               /* owned */
    struct db_pool pool;
    struct db_group group;    /* of a local engine */
    struct db_server *server; /* owned; of a remote engine */
    /* Set by db_listen: */
    void (*told)(void *context, struct str payload);
    void *told_context;
};

/* db.c */
int db_conn_open(struct db *db, enum db_role role, struct db_conn *conn, struct err *err);
void db_conn_close(struct db_conn *conn);
/* False when the deadline has passed. */
bool db_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, struct mono_us deadline);
/* static: what a client may hear of a failure of that kind. */
const char *db_say(enum err_kind kind);
/* Broken SQL is our own bug. */
_Noreturn void db_broken(const char *reason, const char *sql);

/* db_pool.c */
void db_pool_open(struct db_pool *pool);
void db_pool_close(struct db_pool *pool);
int db_pool_take(struct db *db, struct db_conn **ret, struct err *err) MUST_CHECK;
void db_pool_give_back(struct db *db, struct db_conn *conn);

/* db_group.c */
int db_group_open(struct db *db, struct err *err) MUST_CHECK;
void db_group_close(struct db *db);
int db_group_begin(struct db *db, struct err *err) MUST_CHECK;
int db_group_commit(struct db *db, struct err *err) MUST_CHECK;
void db_group_undo(struct db *db);
/* -1 when the engine has given the owner's transaction up. */
int db_group_alive(const struct db *db, struct err *err) MUST_CHECK;
/* To be told after each failure of the writing link: dooms the group when the engine gave up. */
void db_group_failed(struct db *db, const struct err *err);

#endif
