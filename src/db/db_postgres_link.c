/* A link: its transaction, and what is sent for it.
 *
 * Everything goes through libpq's pipeline, so that what belongs together is one round trip: BEGIN
 * rides with the first statement of its transaction, the preparation of a statement with its first
 * run, notices with COMMIT. A transaction of n statements costs n + 1 round trips, a read one.
 *
 * What broke with nothing under way - a read, or a transaction's beginning - is run again once, on
 * a new connection. A statement that fails inside a transaction is its end: PostgreSQL takes
 * nothing more in it, and what follows is told the same failure. */
#include "db/db_postgres_int.h"

#include <poll.h>

/* The server's own limits end a statement first, and keep the connection. */
#define GRACE_US CLOCK_SECOND_US

/* The first statement of a transaction brings it from the phase `due` to `begun`. */
static const struct beginning {
    enum phase due;
    enum phase begun;
    const char *sql;
} beginnings[] = {
    {WRITE_DUE, WRITING, "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"},
    {SNAPSHOT_DUE, READING, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"},
};

/* ---- Round trips ---- */

static const struct beginning *beginning_due(const struct db_link *link)
{
    for (size_t i = 0; i < ARRAY_SIZE(beginnings); i++)
        if (beginnings[i].due == link->phase)
            return &beginnings[i];
    return NULL;
}

static bool writes(const struct db_link *link)
{
    return link->phase == WRITE_DUE || link->phase == WRITING;
}

/* The functions that put something into the pipeline are false when the connection is no more. */
static bool put(struct db_link *link, const char *sql, int n, const char *const *values)
{
    return PQsendQueryParams(link->pg, sql, n, NULL, values, NULL, NULL,
                             /* resultFormat= */ 1) == 1;
}

static bool is_prepared(const struct db_cursor *cursor)
{
    return cursor->connection == cursor->link->connections;
}

static bool put_cursor(struct db_link *link, struct db_cursor *cursor)
{
    if (!is_prepared(cursor)) {
        (void)snprintf(cursor->name, sizeof(cursor->name), "s%u", ++link->names);
        if (PQsendPrepare(link->pg, cursor->name, cursor->sql, 0, NULL) == 0)
            return false;
    }
    return PQsendQueryPrepared(link->pg, cursor->name, cursor->n, cursor->values, cursor->lengths,
                               cursor->formats, /* resultFormat= */ 1) == 1;
}

static bool put_errand(struct db_link *link, const struct errand *errand)
{
    const struct beginning *beginning = beginning_due(link);
    if (beginning != NULL && !put(link, beginning->sql, 0, NULL))
        return false;
    if (errand->cursor != NULL)
        return put_cursor(link, errand->cursor);
    return put(link, errand->sql, errand->n, errand->values);
}

void postgres_link_drop(struct db_link *link)
{
    PQfinish(link->pg);
    link->pg = NULL;
}

int postgres_link_connect(struct db_link *link, struct err *err)
{
    if (postgres_connect_link(link->server, &link->pg, err) < 0)
        return -1;
    link->connections++;
    link->names = 0;
    return 0;
}

/* Ends the transaction on the server, if there is one; what came of it does not matter. */
static void send_rollback(struct db_link *link)
{
    if (link->pg == NULL || PQtransactionStatus(link->pg) == PQTRANS_IDLE)
        return;
    auto_answer answer = {0};
    if (put(link, "ROLLBACK", 0, NULL))
        postgres_exchange(link->pg, link->patience_us, &answer);
    if (answer.result == NULL || answer.lost)
        postgres_link_drop(link);
}

static bool has_code(const struct answer *answer, const char *code)
{
    return answer->failure != NULL && strcmp(postgres_code(answer->failure), code) == 0;
}

/* The plan that the server kept does not fit the schema any more, or it kept none: somebody changed
 * the schema, or discarded what the session had. To prepare it again helps. */
static bool is_stale(const struct db_cursor *cursor, const struct answer *answer)
{
    return is_prepared(cursor) && (has_code(answer, "0A000") || has_code(answer, "26000"));
}

/* Makes it possible to run the errand again, where nothing was under way. */
static bool recover(struct db_link *link, const struct errand *errand, const struct answer *answer)
{
    if (link->phase != APART && beginning_due(link) == NULL)
        return false;
    if (errand->cursor != NULL && is_stale(errand->cursor, answer)) {
        errand->cursor->connection = 0;
        send_rollback(link);
        return true;
    }
    /* A server that is a standby by now is as good as lost: the next connection is to its heir. */
    bool standby = writes(link) && has_code(answer, "25006");
    if (answer->silent || !(answer->lost || standby))
        return false;
    postgres_link_drop(link);
    return true;
}

/* Says that the connection is lost, and drops it. */
static int lost(struct db_link *link, const struct answer *answer, enum err_kind kind,
                const char *sql, struct err *err)
{
    char text[240];
    postgres_words(answer->failure != NULL ? PQresultErrorMessage(answer->failure)
                                           : PQerrorMessage(link->pg),
                   text, sizeof(text));
    (void)err_set(err, kind, "%s", db_say(kind));
    if (answer->silent)
        (void)err_why(err, "postgres: no answer for %lld ms",
                      (long long)(link->patience_us / 1000));
    else
        (void)err_why(err, "postgres: the connection broke: %s", text);
    (void)err_why(err, "in \"%.100s\"", sql);
    postgres_link_drop(link);
    if (answer->silent)
        postgres_server_lost(link->server, err);
    return -1;
}

/* A transaction ends with its first failure. */
static int give_up(struct db_link *link, const struct err *err)
{
    if (link->phase != APART) {
        link->phase = GIVEN_UP;
        link->failure = *err;
    }
    return -1;
}

static int errand_failed(struct db_link *link, const struct errand *errand,
                         const struct answer *answer, struct err *err)
{
    const char *sql = errand->cursor != NULL ? errand->cursor->sql : errand->sql;
    if (answer->lost) {
        enum err_kind kind = writes(link) && !answer->silent ? ERR_AGAIN : ERR_BUSY;
        (void)lost(link, answer, kind, sql, err);
        return give_up(link, err);
    }
    enum err_kind kind = postgres_kind(postgres_code(answer->failure));
    if (errand->cursor != NULL && is_stale(errand->cursor, answer)) {
        errand->cursor->connection = 0;
        kind = ERR_AGAIN;
    }
    if (kind == ERR_AGAIN && !writes(link))
        kind = ERR_BUSY;
    if (has_code(answer, "25006") && !writes(link)) /* it writes where it said it would not */
        kind = ERR_INTERNAL;
    (void)postgres_failed(answer->failure, kind, sql, err);
    return give_up(link, err);
}

/* SQL that cannot be right; but a table that is missing, a right that is, or a name that is taken
 * (by another client of a pooler between us) may be the operator's doing. */
static void check_sql(const struct errand *errand, const struct answer *answer)
{
    if (answer->failure == NULL || strncmp(postgres_code(answer->failure), "42", 2) != 0 ||
        has_code(answer, "42501") || has_code(answer, "42P01") || has_code(answer, "42P05"))
        return;
    db_broken(PQresultErrorField(answer->failure, PG_DIAG_MESSAGE_PRIMARY),
              errand->cursor != NULL ? errand->cursor->sql : errand->sql);
}

/* One round trip. */
static int try_errand(struct db_link *link, const struct errand *errand, struct answer *ret)
{
    const struct beginning *beginning = beginning_due(link);
    if (put_errand(link, errand))
        postgres_exchange(link->pg, link->patience_us, ret);
    else
        ret->lost = true;
    /* Behind the BEGIN comes the preparation, if there is one. */
    if (errand->cursor != NULL && ret->done > (beginning != NULL ? 1 : 0))
        errand->cursor->connection = link->connections;
    if (ret->lost || ret->failure != NULL)
        return -1;
    if (beginning != NULL)
        link->phase = beginning->begun;
    return 0;
}

int postgres_run(struct db_link *link, const struct errand *errand, PGresult **ret, struct err *err)
{
    if (link->phase == GIVEN_UP) {
        *err = link->failure;
        return -1;
    }
    for (int tries = 1;; tries++) {
        auto_answer answer = {0};
        if (link->pg == NULL && postgres_link_connect(link, err) < 0)
            return give_up(link, err);
        if (try_errand(link, errand, &answer) == 0) {
            *ret = TAKE(answer.result);
            return 0;
        }
        check_sql(errand, &answer);
        if (tries > 1 || !recover(link, errand, &answer))
            return errand_failed(link, errand, &answer, err);
    }
}

int postgres_number(struct db_link *link, const struct errand *errand, int64_t *ret,
                    struct err *err)
{
    PGresult *result = NULL;
    if (postgres_run(link, errand, &result, err) < 0)
        return -1;
    *ret = PQntuples(result) > 0 ? postgres_int(result, 0, 0) : 0;
    PQclear(result);
    return 0;
}

int postgres_command(struct db_link *link, const char *sql, struct err *err)
{
    PGresult *result = NULL;
    if (postgres_run(link, &(struct errand){.sql = sql}, &result, err) < 0)
        return -1;
    PQclear(result);
    return 0;
}

/* ---- Transactions ---- */

int64_t postgres_patience(const struct db_server *server)
{
    return server->busy_us + GRACE_US;
}

int postgres_begin(struct db_link *link, int64_t wait_us, struct err *err)
{
    (void)wait_us; /* for nobody: writers run beside each other */
    (void)err;
    link->phase = WRITE_DUE;
    return 0;
}

void postgres_end(struct db_link *link)
{
    send_rollback(link);
    link->phase = APART;
    link->patience_us = postgres_patience(link->server);
}

/* Who copies what he reads from a snapshot may let it wait. */
int postgres_begin_read(struct db_link *link, struct err *err)
{
    static const char sql[] = "SELECT set_config('idle_in_transaction_session_timeout', '0', true)";
    link->phase = SNAPSHOT_DUE;
    if (postgres_command(link, sql, err) == 0)
        return 0;
    postgres_end(link);
    return -1;
}

static bool put_notices(struct db_link *link, struct str notices)
{
    while (notices.n > 0) {
        const char *const values[] = {str_cut(&notices, '\0').p};
        if (!put(link, "SELECT pg_notify('holdfast', $1)", 1, values))
            return false;
    }
    return true;
}

/* What ended the connection before COMMIT is sent has ended the transaction. */
static bool is_cut(const struct db_link *link)
{
    struct pollfd fd = {.fd = PQsocket(link->pg), .events = POLLRDHUP};
    return poll(&fd, 1, 0) != 0;
}

static int send_commit(struct db_link *link, struct str notices, struct err *err)
{
    auto_answer answer = {0};
    bool cut = is_cut(link) || !put_notices(link, notices) || !put(link, "COMMIT", 0, NULL);
    if (cut)
        answer.lost = true;
    else
        postgres_exchange(link->pg, link->patience_us, &answer);
    if (answer.lost)
        return lost(link, &answer, cut ? ERR_AGAIN : ERR_UNSURE, "COMMIT", err);
    if (answer.failure != NULL) {
        const char *code = postgres_code(answer.failure);
        bool queue_full = strncmp(code, "54", 2) == 0; /* of notices */
        return postgres_failed(answer.failure, queue_full ? ERR_BUSY : postgres_kind(code),
                               "COMMIT", err);
    }
    if (strcmp(PQcmdStatus(answer.result), "COMMIT") == 0)
        return 0;
    (void)err_set(err, ERR_AGAIN, "%s", db_say(ERR_AGAIN));
    return err_why(err, "postgres: COMMIT was answered with \"%s\"", PQcmdStatus(answer.result));
}

int postgres_commit(struct db_link *link, struct str notices, struct err *err)
{
    int result = 0;
    /* Notices alone make a transaction too. */
    if (link->phase == WRITE_DUE && notices.n > 0)
        result = postgres_command(link, "SELECT 1", err);
    if (link->phase == GIVEN_UP) {
        *err = link->failure;
        result = -1;
    } else if (link->phase == WRITING) {
        result = send_commit(link, notices, err);
    }
    postgres_end(link);
    return result;
}

int postgres_lock(struct db_link *link, int64_t key, bool shared, struct err *err)
{
    /* Keys of other programs in the same database are likely to be small: keep away from them. */
    char text[24];
    (void)snprintf(text, sizeof(text), "%lld", (long long)(key ^ INT64_C(0x486f6c6466617374)));
    const char *const values[] = {text};
    struct errand errand = {
        .sql =
            shared ? "SELECT pg_advisory_xact_lock_shared($1)" : "SELECT pg_advisory_xact_lock($1)",
        .n = 1,
        .values = values,
    };
    PGresult *result = NULL;
    if (postgres_run(link, &errand, &result, err) < 0)
        return -1;
    PQclear(result);
    return 0;
}

int postgres_lock_schema(struct db_link *link, struct err *err)
{
    static const char sql_patient[] =
        "SELECT set_config('statement_timeout', '0', true), set_config('lock_timeout', '0', true)";
    static const char sql_lock[] =
        "SELECT pg_advisory_xact_lock(" POSTGRES_LOCK_CLASS ", " POSTGRES_LOCK_SCHEMA ")";
    if (postgres_command(link, sql_patient, err) < 0)
        return -1;
    link->patience_us = POSTGRES_SCHEMA_US;
    return postgres_command(link, sql_lock, err);
}

int postgres_script(struct db_link *link, const char *sql, struct err *err)
{
    require(link->phase == WRITING); /* lock_schema comes before */
    auto_answer answer = {0};
    if (PQexitPipelineMode(link->pg) == 1)
        postgres_ask_script(link->pg, sql, link->patience_us, &answer);
    else
        answer.lost = true;
    if (!answer.lost && PQenterPipelineMode(link->pg) == 0)
        answer.lost = true;
    if (!answer.lost && answer.failure == NULL)
        return 0;
    return errand_failed(link, &(struct errand){.sql = sql}, &answer, err);
}
