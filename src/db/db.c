/* Opening, transactions and statements; the engine-neutral half of db.h. */
#include "db/db_int.h"

#define READERS_MAX 256
#define NOTICE_BYTES_MAX 1000
#define NOTICES_BYTES_MAX ((size_t)16 << 20) /* of one transaction */

const char *db_say(enum err_kind kind)
{
    switch (kind) {
    case ERR_CONFLICT:
        return "this conflicts with what is stored";
    case ERR_BUSY:
    case ERR_AGAIN:
        return "the registry's database is busy";
    case ERR_UNSURE:
        return "the registry's database failed, it may have been done or not";
    case ERR_FULL:
        return "the registry has no space left to store this";
    case ERR_CORRUPT:
        return "the registry's database is damaged";
    case ERR_TOO_LARGE:
        return "this is too large for the registry's database";
    case ERR_INVALID:
        return "this holds characters that the registry's database cannot store";
    case ERR_IO:
        return "the registry's database failed";
    case ERR_NONE:
    case ERR_UNAUTHENTICATED:
    case ERR_DENIED:
    case ERR_NOT_FOUND:
    case ERR_PRECONDITION:
    case ERR_RANGE:
    case ERR_UNSUPPORTED:
    case ERR_TIMEOUT:
    case ERR_INTERNAL:
        break;
    }
    return "the registry made a mistake with its database";
}

void db_broken(const char *reason, const char *sql)
{
    char text[400];
    (void)snprintf(text, sizeof(text), "%.80s, in SQL: %.300s", reason, sql);
    require_failed(text, __FILE__, __LINE__);
}

bool db_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, struct mono_us deadline)
{
    struct timespec at = {.tv_sec = deadline.us / CLOCK_SECOND_US,
                          .tv_nsec = deadline.us % CLOCK_SECOND_US * 1000};
    return pthread_cond_clockwait(cond, mutex, CLOCK_MONOTONIC, &at) == 0;
}

int db_conn_open(struct db *db, enum db_role role, struct db_conn *conn, struct err *err)
{
    conn->db = db;
    conn->writes = role == DB_WRITER;
    return db->engine->connect(&db->options, db->server, role, &conn->link, err);
}

void db_conn_close(struct db_conn *conn)
{
    require(conn->open_statements == 0);
    for (size_t i = 0; i < ARRAY_SIZE(conn->statements); i++)
        for (struct db_stmt *stmt = conn->statements[i], *next; stmt != NULL; stmt = next) {
            next = stmt->next;
            if (stmt->cursor != NULL)
                conn->db->engine->finalize(stmt->cursor);
            free(stmt);
        }
    conn->db->engine->disconnect(conn->link);
}

int db_open(const struct db_options *options, struct db **ret, struct err *err)
{
    require(options->readers >= 1 && options->readers <= READERS_MAX && options->busy_us >= 0);
    struct db *db = mem_zalloc(sizeof(*db));
    db->options = *options;
    db_pool_open(&db->pool);
    int result = 0;
    if (options->url != NULL) {
        db->engine = &db_postgres;
        db->options.url = db->place = mem_strdup(options->url);
        result = db->engine->remote->open(&db->options, &db->server, err);
    } else {
        db->engine = &db_sqlite;
        db->options.path = db->place = mem_strdup(options->path);
        result = db_group_open(db, err);
    }
    if (result < 0) {
        db_pool_close(&db->pool);
        free(db->place);
        free(db);
        return -1;
    }
    *ret = db;
    return 0;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    db_pool_close(&db->pool);
    if (db_is_remote(db))
        db->engine->remote->close(db->server);
    else
        db_group_close(db); /* the last one to close tidies up, so it must be the writer */
    free(db->place);
    free(db);
}

bool db_is_remote(const struct db *db)
{
    return db->engine->remote != NULL;
}

struct wall_us db_now(const struct db *db)
{
    return db_is_remote(db) ? db->engine->remote->now(db->server) : clock_wall();
}

static void note_begin(struct db_conn *conn)
{
    if (conn->db->options.observe != NULL)
        conn->begun = clock_mono();
}

static void note_end(const struct db *db, bool write, struct mono_us begun)
{
    if (db->options.observe != NULL)
        db->options.observe(db->options.observe_context, write, clock_since_us(begun));
}

int db_read(struct db *db, struct db_conn **ret, struct err *err)
{
    if (db_pool_take(db, ret, err) < 0)
        return -1;
    note_begin(*ret);
    return 0;
}

int db_snapshot(struct db_conn *conn, struct err *err)
{
    if (conn->writes || conn->snapshot)
        return 0;
    if (conn->db->engine->begin_read(conn->link, err) < 0)
        return -1;
    conn->snapshot = true;
    return 0;
}

/* Of a remote engine: a connection of the pool. */
static int begin_apart(struct db *db, struct db_conn **ret, struct err *err)
{
    struct db_conn *conn = NULL;
    if (db_pool_take(db, &conn, err) < 0)
        return -1;
    if (db->engine->begin(conn->link, db->options.busy_us, err) < 0) {
        db_pool_give_back(db, conn);
        return -1;
    }
    conn->writes = true;
    *ret = conn;
    return 0;
}

int db_write(struct db *db, struct db_conn **ret, struct err *err)
{
    struct db_conn *conn = &db->group.conn;
    if (db_is_remote(db) ? begin_apart(db, &conn, err) < 0 : db_group_begin(db, err) < 0)
        return -1;
    note_begin(conn);
    *ret = conn;
    return 0;
}

static bool in_group(const struct db_conn *conn)
{
    return conn->writes && !db_is_remote(conn->db);
}

int db_lock(struct db_conn *conn, int64_t key, bool shared, struct err *err)
{
    require(conn->writes);
    const struct db_remote *remote = conn->db->engine->remote;
    return remote != NULL ? remote->lock(conn->link, key, shared, err) : 0;
}

void db_last(struct db_conn *conn)
{
    require(conn->writes && !conn->last);
    conn->last = true;
    if (db_is_remote(conn->db))
        conn->db->engine->remote->last(conn->link, buf_str(&conn->notices));
}

void db_relax(struct db_conn *conn)
{
    require(conn->writes);
    if (db_is_remote(conn->db))
        conn->db->engine->remote->relax(conn->link);
}

static void release(struct db_conn *conn)
{
    conn->writes = conn->snapshot = conn->last = conn->sealed = false;
    db_pool_give_back(conn->db, conn);
}

static int commit_apart(struct db_conn *conn, struct str notices, struct err *err)
{
    if (!conn->sealed)
        crash_point("db.before_commit");
    int result = conn->db->engine->commit(conn->link, notices, err);
    crash_point("db.after_commit");
    release(conn);
    return result;
}

/* To this process, which is all there is. */
static void tell(const struct db *db, struct str notices)
{
    while (db->told != NULL && notices.n > 0)
        db->told(db->told_context, str_cut(&notices, '\0'));
}

int db_commit(struct db_conn *conn, struct err *err)
{
    require(conn->writes && conn->open_statements == 0);
    struct db *db = conn->db;
    struct mono_us begun = conn->begun;
    auto_buf notices = conn->notices; /* the connection is somebody else's before this is over */
    conn->notices = (struct buf){0};
    int result = 0;
    if (db_is_remote(db)) {
        result = commit_apart(conn, buf_str(&notices), err);
    } else {
        conn->last = conn->sealed = false;
        result = db_group_commit(db, err);
        if (result == 0)
            tell(db, buf_str(&notices));
    }
    note_end(db, /* write= */ true, begun);
    return result;
}

void db_end(struct db_conn *conn)
{
    if (conn == NULL)
        return;
    require(conn->open_statements == 0 && !conn->sealed);
    struct db *db = conn->db;
    struct mono_us begun = conn->begun;
    bool writes = conn->writes;
    buf_done(&conn->notices);
    if (in_group(conn)) {
        conn->last = false;
        db_group_undo(db);
    } else {
        if (writes)
            db->engine->rollback(conn->link);
        if (conn->snapshot)
            db->engine->end_read(conn->link);
        release(conn);
    }
    note_end(db, writes, begun);
}

int db_notify(struct db_conn *conn, struct str payload, struct err *err)
{
    require(conn->writes && !conn->last);
    if (payload.n > NOTICE_BYTES_MAX || str_find(payload, '\0') < payload.n)
        return err_set(err, ERR_INTERNAL, "a notice of %zu bytes cannot be told", payload.n);
    if (conn->notices.max == 0)
        conn->notices = BUF_INIT(NOTICES_BYTES_MAX);
    buf_add_str(&conn->notices, payload);
    buf_add_char(&conn->notices, '\0');
    if (conn->notices.overflow)
        return err_set(err, ERR_TOO_LARGE, "too many notices in one transaction");
    return 0;
}

int db_listen(struct db *db, void (*told)(void *context, struct str payload), void *context,
              struct err *err)
{
    (void)err; /* the thread that tells is there already */
    require(db->told == NULL);
    db->told = told;
    db->told_context = context;
    if (db_is_remote(db))
        db->engine->remote->listen(db->server, told, context);
    return 0;
}

bool db_is_told(const struct db *db)
{
    return !db_is_remote(db) || db->engine->remote->is_told(db->server);
}

int db_guard(struct db *db, bool alone, struct err *err)
{
    return db_is_remote(db) ? db->engine->remote->guard(db->server, alone, err) : 0;
}

/* Fibonacci hashing: the texts lie close together, their addresses differ in the lower bits. */
static struct db_stmt **bucket(struct db_conn *conn, const char *sql)
{
    uint64_t mixed = (uint64_t)(uintptr_t)sql * UINT64_C(0x9E3779B97F4A7C15);
    return &conn->statements[mixed >> (64 - DB_BUCKETS_LOG2)];
}

static void remember(struct db_stmt *stmt, const struct err *err)
{
    stmt->failure = mem_alloc(sizeof(*stmt->failure));
    *stmt->failure = *err;
}

struct db_stmt *db_stmt(struct db_conn *conn, const char *sql)
{
    struct db_stmt **place = bucket(conn, sql);
    struct db_stmt *stmt = *place;
    while (stmt != NULL && stmt->sql != sql)
        stmt = stmt->next;
    if (stmt == NULL) {
        stmt = mem_zalloc(sizeof(*stmt));
        stmt->conn = conn;
        stmt->sql = sql;
        stmt->next = *place;
        *place = stmt;
    }
    require(stmt->state == STMT_IDLE && !conn->sealed);
    stmt->state = STMT_BOUND;
    conn->open_statements++;
    if (stmt->cursor == NULL) {
        struct err err;
        if (conn->db->engine->prepare(conn->link, sql, &stmt->cursor, &err) < 0)
            remember(stmt, &err);
    }
    return stmt;
}

void db_bind_int(struct db_stmt *stmt, int parameter, int64_t value)
{
    require(stmt->state == STMT_BOUND);
    if (stmt->cursor != NULL)
        stmt->conn->db->engine->bind_int(stmt->cursor, parameter, value);
}

void db_bind_text(struct db_stmt *stmt, int parameter, struct str value)
{
    require(stmt->state == STMT_BOUND);
    if (stmt->cursor != NULL)
        stmt->conn->db->engine->bind_text(stmt->cursor, parameter, value);
}

void db_bind_blob(struct db_stmt *stmt, int parameter, struct str value)
{
    require(stmt->state == STMT_BOUND);
    if (stmt->cursor != NULL)
        stmt->conn->db->engine->bind_blob(stmt->cursor, parameter, value);
}

static int step(struct db_stmt *stmt, bool *ret_row, struct err *err)
{
    struct db_conn *conn = stmt->conn;
    /* An engine that has given the transaction up would run the statement in one of its own. */
    if (in_group(conn) && db_group_alive(conn->db, err) < 0)
        return -1;
    if (conn->db->engine->step(stmt->cursor, ret_row, err) == 0)
        return 0;
    if (in_group(conn))
        db_group_failed(conn->db, err);
    return -1;
}

int db_step(struct db_stmt *stmt, bool *ret_row, struct err *err)
{
    require(stmt->state != STMT_IDLE);
    if (stmt->failure != NULL) {
        *err = *stmt->failure;
        return -1;
    }
    struct db_conn *conn = stmt->conn;
    bool row = false;
    if (conn->last && db_is_remote(conn->db))
        crash_point("db.before_commit");
    if (stmt->state != STMT_OVER && step(stmt, &row, err) < 0) {
        stmt->state = STMT_OVER;
        remember(stmt, err);
        return -1;
    }
    conn->sealed = conn->last;
    stmt->state = row ? STMT_ROW : STMT_OVER;
    *ret_row = row;
    return 0;
}

int db_read_rows(struct call *call, struct db_stmt *stmt, size_t limit,
                 int (*read)(struct call *call, struct db_stmt *stmt, void *rows, size_t i),
                 void *rows, size_t *ret_n)
{
    for (size_t n = 0;; n++) {
        bool row;
        if (db_step(stmt, &row, &call->err) < 0)
            return -1;
        if (!row) {
            *ret_n = n;
            return 0;
        }
        require(n < limit);
        if (read(call, stmt, rows, n) < 0)
            return -1;
    }
}

int db_run(struct db_stmt *stmt, struct err *err)
{
    bool row = false;
    int result = db_step(stmt, &row, err);
    require(!row);
    db_done(stmt);
    return result;
}

int db_queue(struct db_stmt *stmt, struct err *err)
{
    const struct db_conn *conn = stmt->conn;
    const struct db_remote *remote = conn->db->engine->remote;
    require(conn->writes);
    bool row;
    int result = -1;
    if (stmt->failure != NULL)
        *err = *stmt->failure;
    else
        result = remote != NULL ? remote->queue(stmt->cursor, err) : step(stmt, &row, err);
    db_done(stmt);
    return result;
}

int64_t db_int(struct db_stmt *stmt, int column)
{
    require(stmt->state == STMT_ROW);
    return stmt->conn->db->engine->column_int(stmt->cursor, column);
}

struct str db_text(struct db_stmt *stmt, int column)
{
    require(stmt->state == STMT_ROW);
    return stmt->conn->db->engine->column_text(stmt->cursor, column);
}

struct str db_blob(struct db_stmt *stmt, int column)
{
    require(stmt->state == STMT_ROW);
    return stmt->conn->db->engine->column_blob(stmt->cursor, column);
}

bool db_is_null(struct db_stmt *stmt, int column)
{
    require(stmt->state == STMT_ROW);
    return stmt->conn->db->engine->column_is_null(stmt->cursor, column);
}

int64_t db_changed(struct db_conn *conn)
{
    return conn->db->engine->changed(conn->link);
}

void db_done(struct db_stmt *stmt)
{
    if (stmt->state == STMT_IDLE) /* db_run has ended it already */
        return;
    if (stmt->cursor != NULL)
        stmt->conn->db->engine->reset(stmt->cursor);
    free(stmt->failure);
    stmt->failure = NULL;
    stmt->state = STMT_IDLE;
    stmt->conn->open_statements--;
}

int db_ping(struct db *db, struct err *err)
{
    auto_conn conn = NULL;
    if (db_read(db, &conn, err) < 0)
        return -1;
    return db->engine->ping(conn->link, err);
}

int db_verify(struct db *db, void (*report)(void *context, const char *complaint), void *context,
              struct err *err)
{
    auto_conn conn = NULL;
    if (db_read(db, &conn, err) < 0)
        return -1;
    return db->engine->verify(conn->link, report, context, err);
}
