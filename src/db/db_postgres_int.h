/* Inside the PostgreSQL engine: what its files share.
 *
 *   db_postgres.c          statements and columns; the table of the engine
 *   db_postgres_link.c     transactions, and what is sent for them
 *   db_postgres_verify.c   what the server says of its files
 *   db_postgres_server.c   the server as all see it: its address, its clock, whether it is away
 *   db_postgres_connect.c  making a connection and setting it up
 *   db_postgres_talk.c     one round trip on a connection, with a deadline
 *   db_postgres_error.c    the server's codes in our words
 *   db_postgres_keeper.c   the thread with a connection of its own that listens, holds the guard,
 *                          and notices first that the server went and came back
 *
 * No call waits for ever: libpq's sockets do not block, and whoever waits polls to a deadline. */
#ifndef HOLDFAST_DB_POSTGRES_INT_H
#define HOLDFAST_DB_POSTGRES_INT_H

#include "db/db_int.h"

#include <libpq-fe.h>
#include <stdatomic.h>

struct keeper;

/* ---- The server ---- */

struct db_server {
    const char *url; /* borrowed from the options of db_open; holds the password */
    int64_t busy_us;
    int64_t connect_us; /* for one attempt, over all hosts that the URL names */

    pthread_mutex_t mutex;      /* guards what stands below */
    struct err away_err;        /* why it is away */
    struct mono_us connect_at;  /* no connection is tried before */
    struct err connect_err;     /* why not */
    int64_t clock_round_us;     /* how long the question took whose answer is `clock_offset_us` */
    struct mono_us clock_asked; /* when; 0: never */

    atomic_bool away;                /* calls fail at once, until the keeper finds it again */
    _Atomic int64_t clock_offset_us; /* of its wall clock to our monotonic one */

    struct keeper *keeper; /* owned */
};

/* Reads the URL. Errors: INVALID; says nothing of what the URL holds. */
int postgres_server_read(struct db_server *server, struct err *err) MUST_CHECK;
/* -1, BUSY: it is away. */
int postgres_server_there(struct db_server *server, struct err *err) MUST_CHECK;
/* It did not answer, or could not be reached. */
void postgres_server_lost(struct db_server *server, const struct err *why);
void postgres_server_back(struct db_server *server);
/* What the server's clock said between the two times. */
void postgres_clock_note(struct db_server *server, int64_t wall_us, struct mono_us asked,
                         struct mono_us answered);

/* ---- Connections ---- */

/* A new connection, set up. `cancel_fd`: gives up when it becomes readable; -1: none. `say` of a
 * failure is for the operator. Errors: BUSY, DENIED, UNSUPPORTED; *ret_reached: the server itself
 * said so. ret: owned, end with PQfinish. */
int postgres_connect(struct db_server *server, int cancel_fd, PGconn **ret, bool *ret_reached,
                     struct err *err) MUST_CHECK;
/* The same for a link: in pipeline mode, and not at all while attempts fail. BUSY alone, and `say`
 * is for clients. */
int postgres_connect_link(struct db_server *server, PGconn **ret, struct err *err) MUST_CHECK;

/* ---- Round trips ---- */

/* One in the pipeline. */
struct command {
    const char *sql;          /* static */
    struct db_cursor *cursor; /* borrowed; NULL: a text of the engine's own */
    bool prepares;            /* the cursor, and does not run it */
};

struct answer {
    size_t wanted;         /* of which command the result is kept, counted from 0 */
    PGresult *result;      /* owned; NULL: it was not done */
    PGresult *failure;     /* owned: of the first one that was not */
    size_t done;           /* how many were */
    bool committed;        /* the last of these was a COMMIT that did so */
    bool lost;             /* the connection is gone */
    bool silent;           /* because nothing came in time */
    bool unsent;           /* before all was sent */
    bool commits;          /* COMMIT is the last command */
    struct command failed; /* of a link: what was not done */
};
void postgres_answer_done(struct answer *answer);
#define auto_answer __attribute__((cleanup(postgres_answer_done))) struct answer

/* Waits until PQgetResult does not. -1: the deadline has passed, or `cancel_fd` is readable. A
 * broken connection is 0: PQgetResult tells. */
int postgres_await(PGconn *pg, struct mono_us deadline, int cancel_fd) MUST_CHECK;
/* Sends what was put into the pipeline and takes all answers. */
void postgres_exchange(PGconn *pg, int64_t patience_us, struct answer *ret);
/* One question outside of a pipeline, with text parameters, that is answered with rows in binary.
 */
void postgres_ask(PGconn *pg, const char *sql, int n, const char *const *values,
                  int64_t patience_us, int cancel_fd, struct answer *ret);
/* Any number of statements, outside of a pipeline. */
void postgres_ask_script(PGconn *pg, const char *sql, int64_t patience_us, struct answer *ret);
/* A column that is a boolean, an integer, or a text of digits. Other types are a bug: the caller's
 * SQL says what comes. */
int64_t postgres_int(const PGresult *result, int row, int column);
/* The same for a column whose bytes are its value. */
void postgres_check_bytes(const PGresult *result, int column);

/* ---- Links ---- */

enum phase {
    APART,        /* each statement is by itself */
    WRITE_DUE,    /* a write transaction of which nothing was sent yet */
    SNAPSHOT_DUE, /* the same of a snapshot */
    WRITING,
    READING,   /* in a snapshot */
    COMMITTED, /* with its last statement: nothing may follow */
    GIVEN_UP,  /* a transaction that failed: `failure` says why */
};

struct db_link {
    struct db_server *server; /* borrowed */
    PGconn *pg;               /* owned, in pipeline mode; NULL: it broke */
    unsigned connections;     /* how many it has had: statements belong to one */
    unsigned names;           /* of prepared statements */
    enum phase phase;
    struct err failure;
    int64_t changed;
    int64_t patience_us;  /* for each answer */
    struct command *sent; /* owned: what is in the pipeline, and was not answered yet */
    size_t n_sent;
    size_t sent_max;
    bool last;          /* the next cursor that steps commits */
    bool relaxed;       /* COMMIT need not wait for the disk */
    struct str notices; /* borrowed: they go before it */
};

struct db_cursor {
    struct db_link *link; /* borrowed */
    const char *sql;      /* static */
    char name[16];        /* of the statement prepared on the connection of that number: */
    unsigned connection;  /* 0: none */
    bool too_large;       /* a value that was bound */
    PGresult *result;     /* owned; NULL: not run */
    int row;
    int n;               /* parameters; of each: */
    const char **values; /* borrowed, or its number; NULL: NULL */
    int *lengths;
    int *formats; /* 1: as they are, 0: decimal digits, which are right for every type */
    char (*numbers)[24];
};

/* One statement, and what goes with it; or none, for what is queued alone. */
struct errand {
    const char *sql; /* static */
    int n;
    const char *const *values; /* texts */
    struct db_cursor *cursor;  /* instead of all that */
    bool commits;              /* COMMIT goes with it */
};

/* One round trip, with all that was queued, and BEGIN and COMMIT where they are due. ret: owned */
int postgres_run(struct db_link *link, const struct errand *errand, PGresult **ret,
                 struct err *err) MUST_CHECK;
/* The same for a statement whose answer is of no interest, or is one integer. */
int postgres_command(struct db_link *link, const char *sql, struct err *err) MUST_CHECK;
int postgres_number(struct db_link *link, const struct errand *errand, int64_t *ret,
                    struct err *err) MUST_CHECK;
int postgres_link_connect(struct db_link *link, struct err *err) MUST_CHECK;
/* Ends the connection, not the link. */
void postgres_link_drop(struct db_link *link);
int64_t postgres_patience(const struct db_server *server);
/* How long changes of the schema and checks of everything may take. */
#define POSTGRES_SCHEMA_US (3600 * CLOCK_SECOND_US)

/* Of the engine's table: see struct db_engine. postgres_end: end_read and rollback. */
int postgres_begin(struct db_link *link, int64_t wait_us, struct err *err);
int postgres_begin_read(struct db_link *link, struct err *err);
void postgres_end(struct db_link *link);
int postgres_commit(struct db_link *link, struct str notices, struct err *err);
int postgres_queue(struct db_cursor *cursor, struct err *err);
void postgres_last(struct db_link *link, struct str notices);
void postgres_relax(struct db_link *link);
int postgres_lock(struct db_link *link, int64_t key, bool shared, struct err *err);
int postgres_lock_schema(struct db_link *link, struct err *err);
int postgres_script(struct db_link *link, const char *sql, struct err *err);
int postgres_ping(struct db_link *link, struct err *err);
int postgres_verify(struct db_link *link, void (*report)(void *context, const char *complaint),
                    void *context, struct err *err);

/* ---- Errors ---- */

/* static or borrowed; never NULL: "" when the failure is not the server's */
const char *postgres_code(const PGresult *failure);
enum err_kind postgres_kind(const char *code);
/* From a failed statement. `sql` is for the log. */
int postgres_failed(const PGresult *failure, enum err_kind kind, const char *sql, struct err *err);
/* "why" of libpq's words: one line, without the place in the server's source. */
void postgres_words(const char *message, char *text, size_t size);

/* ---- The keeper ---- */

/* `pg`: taken over. */
int postgres_keeper_start(struct db_server *server, PGconn *pg, struct err *err) MUST_CHECK;
void postgres_keeper_stop(struct db_server *server);
void postgres_keeper_listen(struct db_server *server,
                            void (*told)(void *context, struct str payload), void *context);
bool postgres_keeper_is_told(const struct db_server *server);
int postgres_keeper_guard(struct db_server *server, bool alone, struct err *err) MUST_CHECK;

/* Advisory locks of two numbers: the first is "Hold", the second one of these. Those of db_lock are
 * of one number, and apart. */
#define POSTGRES_LOCK_CLASS "1215261796"
#define POSTGRES_LOCK_SCHEMA "1"
#define POSTGRES_LOCK_GUARD "2"

#endif
