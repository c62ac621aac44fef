/* The readers' pool and the statements; the engine-neutral half of db.h. */
#include "db/db_int.h"

#define READERS_MAX 256

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
    return db->engine->connect(&db->options, role, &conn->link, err);
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

static void db_free(struct db *db)
{
    (void)pthread_cond_destroy(&db->returned);
    (void)pthread_mutex_destroy(&db->mutex);
    free(db->path);
    free(db);
}

int db_open(const struct db_options *options, struct db **ret, struct err *err)
{
    require(options->readers >= 1 && options->readers <= READERS_MAX && options->busy_us >= 0);
    struct db *db = mem_zalloc(sizeof(*db));
    db->engine = &db_sqlite;
    db->options = *options;
    db->path = mem_strdup(options->path);
    db->options.path = db->path;
    require(pthread_mutex_init(&db->mutex, NULL) == 0);
    require(pthread_cond_init(&db->returned, NULL) == 0);
    if (db_group_open(db, err) < 0) {
        db_free(db);
        return -1;
    }
    *ret = db;
    return 0;
}

void db_close(struct db *db)
{
    if (db == NULL)
        return;
    while (db->idle != NULL) {
        struct db_conn *conn = db->idle;
        db->idle = conn->next;
        db_conn_close(conn);
        free(conn);
        db->n_readers--;
    }
    require(db->n_readers == 0); /* all were idle */
    db_group_close(db);
    db_free(db);
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

/* *ret is NULL when there is none and the caller has the right to make one. */
static int take_reader(struct db *db, struct db_conn **ret)
{
    struct mono_us deadline = {0};
    auto_lock held = lock_take(&db->mutex);
    while (db->idle == NULL && db->n_readers == db->options.readers) {
        if (deadline.us == 0)
            deadline.us = clock_mono().us + db->options.busy_us;
        db->waiting++;
        bool in_time = db_wait(&db->returned, &db->mutex, deadline);
        db->waiting--;
        if (!in_time && db->idle == NULL && db->n_readers == db->options.readers)
            return -1;
    }
    *ret = db->idle;
    if (db->idle != NULL)
        db->idle = db->idle->next;
    else
        db->n_readers++;
    return 0;
}

static void give_reader_back(struct db *db, struct db_conn *conn)
{
    auto_lock held = lock_take(&db->mutex);
    if (conn != NULL) {
        conn->next = db->idle;
        db->idle = conn;
    } else {
        db->n_readers--;
    }
    if (db->waiting > 0)
        require(pthread_cond_signal(&db->returned) == 0);
}

int db_read(struct db *db, struct db_conn **ret, struct err *err)
{
    struct db_conn *conn = NULL;
    if (take_reader(db, &conn) < 0) {
        (void)err_set(err, ERR_BUSY, "the registry's database is busy");
        return err_why(err, "all %u reading connections were in use for %lld ms",
                       db->options.readers, (long long)(db->options.busy_us / 1000));
    }
    if (conn == NULL) {
        conn = mem_zalloc(sizeof(*conn));
        if (db_conn_open(db, DB_READER, conn, err) < 0) {
            free(conn);
            give_reader_back(db, NULL);
            return -1;
        }
    }
    note_begin(conn);
    *ret = conn;
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

int db_write(struct db *db, struct db_conn **ret, struct err *err)
{
    if (db_group_begin(db, err) < 0)
        return -1;
    note_begin(&db->group.conn);
    *ret = &db->group.conn;
    return 0;
}

int db_commit(struct db_conn *conn, struct err *err)
{
    require(conn->writes && conn->open_statements == 0);
    struct db *db = conn->db;
    struct mono_us begun = conn->begun;
    int result = db_group_commit(db, err);
    note_end(db, /* write= */ true, begun);
    return result;
}

void db_end(struct db_conn *conn)
{
    if (conn == NULL)
        return;
    require(conn->open_statements == 0);
    struct db *db = conn->db;
    struct mono_us begun = conn->begun;
    bool writes = conn->writes;
    if (writes) {
        db_group_undo(db);
    } else {
        if (conn->snapshot)
            db->engine->end_read(conn->link);
        conn->snapshot = false;
        give_reader_back(db, conn);
    }
    note_end(db, writes, begun);
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
    require(stmt->state == STMT_IDLE);
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
    if (conn->writes && db_group_alive(conn->db, err) < 0)
        return -1;
    if (conn->db->engine->step(stmt->cursor, ret_row, err) == 0)
        return 0;
    if (conn->writes)
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
    bool row = false;
    if (stmt->state != STMT_OVER && step(stmt, &row, err) < 0) {
        stmt->state = STMT_OVER;
        remember(stmt, err);
        return -1;
    }
    stmt->state = row ? STMT_ROW : STMT_OVER;
    *ret_row = row;
    return 0;
}

int db_run(struct db_stmt *stmt, struct err *err)
{
    bool row = false;
    int result = db_step(stmt, &row, err);
    require(!row);
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
