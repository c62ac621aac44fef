/* The PostgreSQL engine: statements and columns, the server's beginning and end, and the table. */
#include "db/db_postgres_int.h"

#define PARAMETERS_MAX 64
#define VALUE_BYTES_MAX ((size_t)1 << 30) /* PostgreSQL: "field size limit" */
#define START_WAIT_US (30 * CLOCK_SECOND_US)
#define START_PAUSE_US 200000

/* ---- Statements ---- */

/* How many parameters a text has: the greatest n of its $n. */
static int count_parameters(const char *sql)
{
    uint64_t n = 0;
    for (const char *at = strchr(sql, '$'); at != NULL; at = strchr(at + 1, '$')) {
        struct str rest = str_from(at + 1);
        uint64_t number = 0;
        if (str_eat_u64(&rest, PARAMETERS_MAX, &number) && number > n)
            n = number;
    }
    return (int)n;
}

static int prepare(struct db_link *link, const char *sql, struct db_cursor **ret, struct err *err)
{
    (void)err; /* nothing is sent before it runs */
    struct db_cursor *cursor = mem_zalloc(sizeof(*cursor));
    cursor->link = link;
    cursor->sql = sql;
    cursor->n = count_parameters(sql);
    size_t n = (size_t)cursor->n;
    cursor->values = mem_zalloc(n * sizeof(*cursor->values) + 1);
    cursor->lengths = mem_zalloc(n * sizeof(*cursor->lengths) + 1);
    cursor->formats = mem_zalloc(n * sizeof(*cursor->formats) + 1);
    cursor->numbers = mem_zalloc(n * sizeof(*cursor->numbers) + 1);
    *ret = cursor;
    return 0;
}

static void reset(struct db_cursor *cursor)
{
    PQclear(cursor->result);
    cursor->result = NULL;
    cursor->too_large = false;
    for (int i = 0; i < cursor->n; i++)
        cursor->values[i] = NULL;
}

static void finalize(struct db_cursor *cursor)
{
    PQclear(cursor->result);
    free(cursor->values);
    free(cursor->lengths);
    free(cursor->formats);
    free(cursor->numbers);
    free(cursor);
}

static int index_of(const struct db_cursor *cursor, int parameter)
{
    require(parameter >= 1 && parameter <= cursor->n);
    return parameter - 1;
}

static void bind_int(struct db_cursor *cursor, int parameter, int64_t value)
{
    int i = index_of(cursor, parameter);
    (void)snprintf(cursor->numbers[i], sizeof(cursor->numbers[i]), "%lld", (long long)value);
    cursor->values[i] = cursor->numbers[i];
    cursor->formats[i] = 0;
}

/* TEXT and BYTEA have their bytes as binary form. */
static void bind_bytes(struct db_cursor *cursor, int parameter, struct str value)
{
    int i = index_of(cursor, parameter);
    cursor->too_large |= value.n >= VALUE_BYTES_MAX;
    cursor->values[i] = value.p != NULL ? value.p : "";
    cursor->lengths[i] = value.n < VALUE_BYTES_MAX ? (int)value.n : 0;
    cursor->formats[i] = 1;
}

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static void note_changed(struct db_link *link, PGresult *result)
{
    const char *what = PQcmdStatus(result);
    struct str count = str_from(PQcmdTuples(result));
    uint64_t n = 0;
    if ((starts(what, "INSERT") || starts(what, "UPDATE") || starts(what, "DELETE")) &&
        str_eat_u64(&count, INT64_MAX, &n))
        link->changed = (int64_t)n;
}

static int check_size(const struct db_cursor *cursor, struct err *err)
{
    return cursor->too_large ? err_set(err, ERR_TOO_LARGE, "%s", db_say(ERR_TOO_LARGE)) : 0;
}

static int queue(struct db_cursor *cursor, struct err *err)
{
    return check_size(cursor, err) < 0 ? -1 : postgres_queue(cursor, err);
}

static int step(struct db_cursor *cursor, bool *ret_row, struct err *err)
{
    if (cursor->result == NULL) {
        if (check_size(cursor, err) < 0)
            return -1;
        struct errand errand = {.cursor = cursor, .commits = cursor->link->last};
        if (postgres_run(cursor->link, &errand, &cursor->result, err) < 0)
            return -1;
        note_changed(cursor->link, cursor->result);
        cursor->row = -1;
    }
    cursor->row++;
    *ret_row = cursor->row < PQntuples(cursor->result);
    return 0;
}

static bool column_is_null(struct db_cursor *cursor, int column)
{
    require(column >= 0 && column < PQnfields(cursor->result));
    return PQgetisnull(cursor->result, cursor->row, column) != 0;
}

static int64_t column_int(struct db_cursor *cursor, int column)
{
    return column_is_null(cursor, column) ? 0 : postgres_int(cursor->result, cursor->row, column);
}

static struct str column_bytes(struct db_cursor *cursor, int column)
{
    if (column_is_null(cursor, column))
        return (struct str){0};
    postgres_check_bytes(cursor->result, column);
    return (struct str){PQgetvalue(cursor->result, cursor->row, column),
                        (size_t)PQgetlength(cursor->result, cursor->row, column)};
}

static int64_t changed(struct db_link *link)
{
    return link->changed;
}

/* ---- Links and the server ---- */

static int wake(struct db_link *link, struct err *err)
{
    if (postgres_server_there(link->server, err) < 0)
        return -1;
    return link->pg != NULL ? 0 : postgres_link_connect(link, err);
}

static void disconnect(struct db_link *link)
{
    postgres_link_drop(link);
    free(link->sent);
    free(link);
}

static int connect_link(const struct db_options *options, struct db_server *server,
                        enum db_role role, struct db_link **ret, struct err *err)
{
    (void)options;
    (void)role; /* all are alike */
    struct db_link *link = mem_zalloc(sizeof(*link));
    link->server = server;
    link->patience_us = postgres_patience(server);
    if (wake(link, err) < 0) {
        disconnect(link);
        return -1;
    }
    *ret = link;
    return 0;
}

static void close_server(struct db_server *server)
{
    if (server->keeper != NULL)
        postgres_keeper_stop(server);
    (void)pthread_mutex_destroy(&server->mutex);
    free(server);
}

/* The keeper's connection is the first. */
static int connect_first(struct db_server *server, int64_t wait_us, PGconn **ret, struct err *err)
{
    struct mono_us begun = clock_mono();
    bool said = false;
    bool reached = false;
    while (postgres_connect(server, /* cancel_fd= */ -1, ret, &reached, err) < 0) {
        if (err->kind != ERR_BUSY || clock_since_us(begun) >= wait_us)
            return -1;
        if (!said)
            log_say(LOG_LEVEL_WARN, "waiting for the database", LOG_Z("why", err->say));
        said = true;
        (void)usleep(START_PAUSE_US);
    }
    return 0;
}

static int open_server(const struct db_options *options, struct db_server **ret, struct err *err)
{
    struct db_server *server = mem_zalloc(sizeof(*server));
    server->url = options->url;
    server->busy_us = options->busy_us;
    require(pthread_mutex_init(&server->mutex, NULL) == 0);
    int64_t wait_us = options->start_us > 0 ? options->start_us : START_WAIT_US;
    PGconn *pg = NULL;
    if (postgres_server_read(server, err) < 0 || connect_first(server, wait_us, &pg, err) < 0 ||
        postgres_keeper_start(server, pg, err) < 0) {
        close_server(server);
        return -1;
    }
    *ret = server;
    return 0;
}

static struct wall_us now(const struct db_server *server)
{
    return (struct wall_us){clock_mono().us + atomic_load(&server->clock_offset_us)};
}

static const struct db_remote remote = {
    .open = open_server,
    .close = close_server,
    .wake = wake,
    .queue = queue,
    .last = postgres_last,
    .relax = postgres_relax,
    .lock = postgres_lock,
    .lock_schema = postgres_lock_schema,
    .listen = postgres_keeper_listen,
    .is_told = postgres_keeper_is_told,
    .guard = postgres_keeper_guard,
    .now = now,
};

const struct db_engine db_postgres = {
    .find_schema = "SELECT 1 WHERE to_regclass('schema_version') IS NOT NULL",
    .remote = &remote,
    .connect = connect_link,
    .disconnect = disconnect,
    .begin_read = postgres_begin_read,
    .end_read = postgres_end,
    .begin = postgres_begin,
    .commit = postgres_commit,
    .rollback = postgres_end,
    .script = postgres_script,
    .prepare = prepare,
    .finalize = finalize,
    .bind_int = bind_int,
    .bind_text = bind_bytes,
    .bind_blob = bind_bytes,
    .step = step,
    .reset = reset,
    .column_int = column_int,
    .column_text = column_bytes,
    .column_blob = column_bytes,
    .column_is_null = column_is_null,
    .changed = changed,
    .ping = postgres_ping,
    .verify = postgres_verify,
};
