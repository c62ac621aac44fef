/* A link: its transaction, and what is sent for it.
 *
 * Everything goes through libpq's pipeline, so that what belongs together is one round trip: BEGIN
 * rides with the first statement of its transaction, the preparation of a statement with its first
 * run, what was queued with the next statement that is waited for, and COMMIT, with the notices
 * before it, with the transaction's last statement if that was said to be the last.
 *
 * The server takes the commands of a round trip in their order and none behind one that failed. So
 * a COMMIT in it is of all that stands before, or of nothing.
 *
 * What broke with nothing under way - a read, or a transaction's beginning - is run again once, on
 * a new connection. A statement that fails inside a transaction is its end: PostgreSQL takes
 * nothing more in it, and what follows is told the same failure. */
#include "db/db_postgres_int.h"

#include <poll.h>

/* The server's own limits end a statement first, and keep the connection. */
#define GRACE_US CLOCK_SECOND_US

/* So many commands wait in the pipeline; then they are sent, whatever follows. */
#define QUEUE_MAX 256

static const char sql_commit[] = "COMMIT";

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

static void note_sent(struct db_link *link, struct command command)
{
    if (link->n_sent == link->sent_max) {
        link->sent_max = link->sent_max > 0 ? 2 * link->sent_max : 16;
        link->sent = mem_realloc(link->sent, link->sent_max * sizeof(*link->sent));
    }
    link->sent[link->n_sent++] = command;
}

/* The functions that put something into the pipeline are false when the connection is no more. */
static bool put(struct db_link *link, const char *sql, int n, const char *const *values)
{
    note_sent(link, (struct command){.sql = sql});
    return PQsendQueryParams(link->pg, sql, n, NULL, values, NULL, NULL,
                             /* resultFormat= */ 1) == 1;
}

static bool is_prepared(const struct db_cursor *cursor)
{
    return cursor->connection == cursor->link->connections;
}

/* What is prepared here counts as prepared until its answer says otherwise: it may be run again
 * before. */
static bool put_cursor(struct db_link *link, struct db_cursor *cursor)
{
    if (!is_prepared(cursor)) {
        (void)snprintf(cursor->name, sizeof(cursor->name), "s%u", ++link->names);
        cursor->connection = link->connections;
        note_sent(link, (struct command){.sql = cursor->sql, .cursor = cursor, .prepares = true});
        if (PQsendPrepare(link->pg, cursor->name, cursor->sql, 0, NULL) == 0)
            return false;
    }
    note_sent(link, (struct command){.sql = cursor->sql, .cursor = cursor});
    return PQsendQueryPrepared(link->pg, cursor->name, cursor->n, cursor->values, cursor->lengths,
                               cursor->formats, /* resultFormat= */ 1) == 1;
}

/* What ended the connection before COMMIT is sent has ended the transaction. */
static bool is_cut(const struct db_link *link)
{
    struct pollfd fd = {.fd = PQsocket(link->pg), .events = POLLRDHUP};
    return poll(&fd, 1, 0) != 0;
}

static bool put_commit(struct db_link *link)
{
    struct str notices = link->notices;
    while (notices.n > 0) {
        const char *const values[] = {str_cut(&notices, '\0').p};
        if (!put(link, "SELECT pg_notify('holdfast', $1)", 1, values))
            return false;
    }
    if (link->relaxed && !put(link, "SET LOCAL synchronous_commit = off", 0, NULL))
        return false;
    return !is_cut(link) && put(link, sql_commit, 0, NULL);
}

static bool put_statement(struct db_link *link, const struct errand *errand)
{
    const struct beginning *beginning = beginning_due(link);
    if (beginning != NULL && !put(link, beginning->sql, 0, NULL))
        return false;
    if (errand->cursor != NULL)
        return put_cursor(link, errand->cursor);
    return errand->sql == NULL || put(link, errand->sql, errand->n, errand->values);
}

/* Sends what was put, if all of it could be, and takes the answers. -1: not all was done. */
static int exchange(struct db_link *link, bool was_put, struct answer *ret)
{
    if (was_put)
        postgres_exchange(link->pg, link->patience_us, ret);
    else
        ret->lost = ret->unsent = true;
    for (size_t i = ret->done; i < link->n_sent; i++)
        if (link->sent[i].prepares)
            link->sent[i].cursor->connection = 0;
    bool done = !ret->lost && ret->failure == NULL;
    if (!done)
        ret->failed =
            ret->done < link->n_sent ? link->sent[ret->done] : (struct command){.sql = sql_commit};
    link->n_sent = 0;
    return done ? 0 : -1;
}

void postgres_link_drop(struct db_link *link)
{
    PQfinish(link->pg);
    link->pg = NULL;
    link->n_sent = 0;
}

int postgres_link_connect(struct db_link *link, struct err *err)
{
    if (postgres_connect_link(link->server, &link->pg, err) < 0)
        return -1;
    link->connections++;
    link->names = 0;
    return 0;
}

/* Ends the transaction on the server, if there is one; what came of it does not matter. Behind
 * something queued that fails the first ROLLBACK is not taken. */
static void send_rollback(struct db_link *link)
{
    for (int tries = 0; tries < 2 && link->pg != NULL; tries++) {
        if (PQtransactionStatus(link->pg) == PQTRANS_IDLE) /* and nothing is queued */
            return;
        auto_answer answer = {0};
        (void)exchange(link, put(link, "ROLLBACK", 0, NULL), &answer);
        if (answer.lost || (answer.failure != NULL && tries > 0))
            postgres_link_drop(link);
    }
}

static bool has_code(const struct answer *answer, const char *code)
{
    return answer->failure != NULL && strcmp(postgres_code(answer->failure), code) == 0;
}

/* The plan that the server kept does not fit the schema any more, or it kept none: somebody changed
 * the schema, or discarded what the session had. To prepare it again helps. */
static bool is_stale(const struct answer *answer)
{
    const struct command *failed = &answer->failed;
    return failed->cursor != NULL && !failed->prepares &&
           (has_code(answer, "0A000") || has_code(answer, "26000"));
}

/* A server that is a standby by now is as good as lost: the next connection is to its heir. */
static bool is_standby(const struct db_link *link, const struct answer *answer)
{
    bool refused = answer->failed.cursor == NULL && has_code(answer, "0A000"); /* READ WRITE */
    return writes(link) && (refused || has_code(answer, "25006"));
}

/* COMMIT was on its way when the connection broke, and the server did not say before that it would
 * not come to it. What was relaxed may be done twice. */
static bool is_unsure(const struct db_link *link, const struct answer *answer)
{
    bool refused = answer->failure != NULL && postgres_code(answer->failure)[0] != '\0' &&
                   answer->failed.sql != sql_commit;
    return answer->lost && !answer->unsent && answer->commits && !link->relaxed && !refused;
}

/* Makes it possible to run the errand again, where nothing was under way. */
static bool recover(struct db_link *link, const struct answer *answer)
{
    if ((link->phase != APART && beginning_due(link) == NULL) || is_unsure(link, answer))
        return false;
    if (is_stale(answer)) {
        answer->failed.cursor->connection = 0;
        send_rollback(link);
        return true;
    }
    if (answer->silent || !(answer->lost || is_standby(link, answer)))
        return false;
    postgres_link_drop(link);
    return true;
}

/* Says that the connection is lost, and drops it. */
static int lost(struct db_link *link, const struct answer *answer, enum err_kind kind,
                struct err *err)
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
    (void)err_why(err, "in \"%.100s\"", answer->failed.sql);
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

static enum err_kind kind_of_loss(const struct db_link *link, const struct answer *answer)
{
    if (is_unsure(link, answer))
        return ERR_UNSURE;
    return writes(link) && !answer->silent ? ERR_AGAIN : ERR_BUSY;
}

static enum err_kind kind_of_failure(const struct db_link *link, const struct answer *answer)
{
    const char *code = postgres_code(answer->failure);
    enum err_kind kind = is_stale(answer) ? ERR_AGAIN : postgres_kind(code);
    if (kind == ERR_AGAIN && !writes(link))
        return ERR_BUSY;
    if (strcmp(code, "25006") == 0 && !writes(link)) /* it writes where it said it would not */
        return ERR_INTERNAL;
    if (answer->failed.sql == sql_commit && strncmp(code, "54", 2) == 0) /* a queue of notices */
        return ERR_BUSY;
    return is_standby(link, answer) ? ERR_BUSY : kind;
}

static int errand_failed(struct db_link *link, const struct answer *answer, struct err *err)
{
    if (answer->lost) {
        (void)lost(link, answer, kind_of_loss(link, answer), err);
        return give_up(link, err);
    }
    if (answer->failure == NULL) {
        (void)err_set(err, ERR_AGAIN, "%s", db_say(ERR_AGAIN));
        (void)err_why(err, "postgres: COMMIT was answered with something else");
        return give_up(link, err);
    }
    (void)postgres_failed(answer->failure, kind_of_failure(link, answer), answer->failed.sql, err);
    if (is_stale(answer))
        answer->failed.cursor->connection = 0;
    if (is_standby(link, answer))
        postgres_link_drop(link);
    return give_up(link, err);
}

/* SQL that cannot be right; but a table that is missing, a right that is, or a name that is taken
 * (by another client of a pooler between us) may be the operator's doing. */
static void check_sql(const struct answer *answer)
{
    if (answer->failure == NULL || strncmp(postgres_code(answer->failure), "42", 2) != 0 ||
        has_code(answer, "42501") || has_code(answer, "42P01") || has_code(answer, "42P05"))
        return;
    db_broken(PQresultErrorField(answer->failure, PG_DIAG_MESSAGE_PRIMARY), answer->failed.sql);
}

/* One round trip. */
static int try_errand(struct db_link *link, const struct errand *errand, struct answer *ret)
{
    const struct beginning *beginning = beginning_due(link);
    bool was_put = put_statement(link, errand);
    ret->wanted = link->n_sent - 1;
    ret->commits = errand->commits;
    was_put = was_put && (!errand->commits || put_commit(link));
    if (exchange(link, was_put, ret) < 0)
        return -1;
    if (beginning != NULL)
        link->phase = beginning->begun;
    if (errand->commits && !ret->committed)
        return -1;
    if (errand->commits)
        link->phase = COMMITTED;
    return 0;
}

int postgres_run(struct db_link *link, const struct errand *errand, PGresult **ret, struct err *err)
{
    if (link->phase == GIVEN_UP) {
        *err = link->failure;
        return -1;
    }
    require(link->phase != COMMITTED);
    for (int tries = 1;; tries++) {
        auto_answer answer = {0};
        if (link->pg == NULL && postgres_link_connect(link, err) < 0)
            return give_up(link, err);
        if (try_errand(link, errand, &answer) == 0) {
            *ret = TAKE(answer.result);
            return 0;
        }
        check_sql(&answer);
        if (tries > 1 || !recover(link, &answer))
            return errand_failed(link, &answer, err);
    }
}

/* Nothing but what is queued, and perhaps COMMIT. */
static int send_all(struct db_link *link, bool commits, struct err *err)
{
    PGresult *nothing = NULL;
    int result = postgres_run(link, &(struct errand){.commits = commits}, &nothing, err);
    PQclear(nothing);
    return result;
}

/* Makes room, and a connection. */
static int prepare_queue(struct db_link *link, struct err *err)
{
    if (link->phase == GIVEN_UP) {
        *err = link->failure;
        return -1;
    }
    if (link->n_sent >= QUEUE_MAX)
        return send_all(link, /* commits= */ false, err);
    if (link->phase == WRITE_DUE && link->pg != NULL && is_cut(link))
        postgres_link_drop(link);
    return link->pg == NULL && postgres_link_connect(link, err) < 0 ? give_up(link, err) : 0;
}

static int queue(struct db_link *link, const struct errand *errand, struct err *err)
{
    if (prepare_queue(link, err) < 0)
        return -1;
    require(writes(link));
    if (!put_statement(link, errand)) {
        auto_answer answer = {0};
        (void)exchange(link, /* was_put= */ false, &answer);
        return errand_failed(link, &answer, err);
    }
    link->phase = WRITING;
    return 0;
}

int postgres_queue(struct db_cursor *cursor, struct err *err)
{
    return queue(cursor->link, &(struct errand){.cursor = cursor}, err);
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
    link->last = link->relaxed = false;
    link->notices = (struct str){0};
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

void postgres_last(struct db_link *link, struct str notices)
{
    link->last = true;
    link->notices = notices;
}

void postgres_relax(struct db_link *link)
{
    link->relaxed = true;
}

int postgres_commit(struct db_link *link, struct str notices, struct err *err)
{
    int result = 0;
    bool empty = link->phase == WRITE_DUE && notices.n == 0;
    if (link->phase != COMMITTED && !empty) {
        link->notices = notices;
        result = send_all(link, /* commits= */ true, err);
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
    if (queue(link, &errand, err) < 0)
        return -1;
    /* It may wait for long: then what comes behind it has our patience for itself. */
    (void)PQsendFlushRequest(link->pg);
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
    require(link->phase == WRITING && link->n_sent == 0); /* lock_schema comes before */
    auto_answer answer = {0};
    if (PQexitPipelineMode(link->pg) == 1)
        postgres_ask_script(link->pg, sql, link->patience_us, &answer);
    else
        answer.lost = true;
    if (!answer.lost && PQenterPipelineMode(link->pg) == 0)
        answer.lost = true;
    if (!answer.lost && answer.failure == NULL)
        return 0;
    answer.failed = (struct command){.sql = sql};
    return errand_failed(link, &answer, err);
}
