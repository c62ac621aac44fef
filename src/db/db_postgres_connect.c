/* Making a connection and setting it up. */
#include "db/db_postgres_int.h"

#include <ctype.h>
#include <limits.h>
#include <poll.h>

#define VERSION_OLDEST 130000

/* Ours come first: what the URL says overrides them. A network that is cut is noticed by keepalives
 * while nothing is sent, and by the user timeout while something is, a connection that does not
 * come about included: then libpq goes on to the next host. */
static PGconn *start(const struct db_server *server)
{
    const char *const keywords[] = {
        "keepalives_idle",  "keepalives_interval",       "keepalives_count",
        "tcp_user_timeout", "fallback_application_name", "target_session_attrs",
        "dbname",           "client_encoding",           NULL};
    const char *const values[] = {"10",      "3",         "3",    "5000", "holdfast",
                                  "primary", server->url, "UTF8", NULL};
    _Static_assert(ARRAY_SIZE(keywords) == ARRAY_SIZE(values), "pairs");
    return PQconnectStartParams(keywords, values, /* expand_dbname= */ 1);
}

static void ignore_notice(void *context, const char *message)
{
    (void)context;
    (void)message;
}

/* False: it did not come about, or not in time. */
static bool follow(PGconn *pg, struct mono_us deadline, int cancel_fd)
{
    PostgresPollingStatusType next = PGRES_POLLING_WRITING;
    while (next == PGRES_POLLING_WRITING || next == PGRES_POLLING_READING) {
        int64_t left_us = deadline.us - clock_mono().us;
        if (left_us <= 0)
            return false;
        struct pollfd fds[] = {
            {.fd = PQsocket(pg), .events = next == PGRES_POLLING_READING ? POLLIN : POLLOUT},
            {.fd = cancel_fd, .events = POLLIN},
        };
        (void)poll(fds, ARRAY_SIZE(fds), (int)(left_us / 1000) + 1);
        if (fds[1].revents != 0)
            return false;
        if (fds[0].revents != 0)
            next = PQconnectPoll(pg);
    }
    return next == PGRES_POLLING_OK;
}

/* Before there is a result libpq has no field for the code; but in verbose texts it stands between
 * the severity and the message: "FATAL:  28P01: password authentication failed". */
static void find_code(const char *message, char code[6])
{
    code[0] = '\0';
    for (const char *at = strstr(message, ":  "); at != NULL; at = strstr(at + 1, ":  ")) {
        size_t n = 0;
        while (n < 5 && (isupper((unsigned char)at[3 + n]) || isdigit((unsigned char)at[3 + n])))
            n++;
        if (n == 5 && at[3 + n] == ':') {
            memcpy(code, at + 3, 5);
            code[5] = '\0';
            return;
        }
    }
}

static bool is_refusal(const char *code)
{
    return strncmp(code, "28", 2) == 0 || strcmp(code, "3D000") == 0 || strcmp(code, "42501") == 0;
}

/* Why `pg` is none. */
static int connect_failed(PGconn *pg, bool in_time, bool *ret_reached, struct err *err)
{
    char text[240];
    char code[6];
    const char *message = PQerrorMessage(pg);
    find_code(message, code);
    postgres_words(message, text, sizeof(text));
    bool refused = is_refusal(code) || PQconnectionNeedsPassword(pg) != 0;
    *ret_reached = refused || (code[0] != '\0' && strcmp(code, "57P03") != 0);
    if (refused)
        return err_set(err, ERR_DENIED, "the database refuses the connection: %s", text);
    if (!in_time && text[0] == '\0')
        return err_set(err, ERR_BUSY, "the database at \"%.80s\" does not answer",
                       PQhost(pg) != NULL ? PQhost(pg) : "");
    return err_set(err, ERR_BUSY, "could not connect to the database: %s", text);
}

static int check_server(PGconn *pg, struct err *err)
{
    int version = PQserverVersion(pg);
    if (version < VERSION_OLDEST)
        return err_set(err, ERR_UNSUPPORTED,
                       "the database is PostgreSQL %d.%d: this program needs 13 or later",
                       version / 10000, version % 10000);
    const char *encoding = PQparameterStatus(pg, "server_encoding");
    if (encoding == NULL || strcmp(encoding, "UTF8") != 0)
        return err_set(err, ERR_UNSUPPORTED,
                       "the database stores text as \"%.40s\": make one with ENCODING 'UTF8'",
                       encoding != NULL ? encoding : "");
    return 0;
}

/* Reading is the rule: a write transaction says that it is one. The server ends what takes longer
 * than our patience, and what a node left behind that was cut off or does not go on. A commit that
 * was acknowledged is on the disk. Plans of so short statements are never worth compiling. */
static const char sql_settings[] =
    "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT),"
    " set_config('default_transaction_read_only', 'on', false),"
    " set_config('statement_timeout', $1, false), set_config('lock_timeout', $1, false),"
    " set_config('idle_in_transaction_session_timeout', $1, false),"
    " set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '3', false),"
    " set_config('tcp_user_timeout', '25000', false),"
    " set_config('jit', 'off', false),"
    " CASE current_setting('synchronous_commit') WHEN 'off'"
    " THEN set_config('synchronous_commit', 'on', false) END";

static int set_up(struct db_server *server, PGconn *pg, int64_t patience_us, int cancel_fd,
                  struct err *err)
{
    char limit[24];
    int64_t limit_ms = server->busy_us / 1000 + 1;
    (void)snprintf(limit, sizeof(limit), "%d", limit_ms < INT_MAX ? (int)limit_ms : INT_MAX);
    const char *const values[] = {limit};
    auto_answer answer = {0};
    struct mono_us asked = clock_mono();
    postgres_ask(pg, sql_settings, 1, values, patience_us, cancel_fd, &answer);
    if (answer.failure == NULL && (answer.lost || answer.result == NULL))
        return err_set(err, ERR_BUSY, "the database did not answer on a new connection");
    if (answer.failure != NULL) {
        char text[240];
        postgres_words(PQresultErrorMessage(answer.failure), text, sizeof(text));
        return err_set(err, ERR_BUSY, "could not set up a connection to the database: %s", text);
    }
    postgres_clock_note(server, postgres_int(answer.result, 0, 0), asked, clock_mono());
    return 0;
}

int postgres_connect(struct db_server *server, int cancel_fd, PGconn **ret, bool *ret_reached,
                     struct err *err)
{
    struct mono_us deadline = {clock_mono().us + server->connect_us};
    PGconn *pg = start(server);
    require(pg != NULL); /* else memory is gone */
    (void)PQsetNoticeProcessor(pg, ignore_notice, NULL);
    (void)PQsetErrorVerbosity(pg, PQERRORS_VERBOSE);
    *ret_reached = false;
    int result = -1;
    if (PQstatus(pg) == CONNECTION_BAD || !follow(pg, deadline, cancel_fd)) {
        result = connect_failed(pg, clock_mono().us < deadline.us, ret_reached, err);
    } else {
        *ret_reached = true;
        (void)PQsetnonblocking(pg, 1);
        (void)PQsetErrorVerbosity(pg, PQERRORS_DEFAULT);
        result = check_server(pg, err);
        if (result == 0)
            result = set_up(server, pg, server->connect_us, cancel_fd, err);
    }
    if (result == 0)
        *ret = pg;
    else
        PQfinish(pg);
    return result;
}

/* Also says that somebody tries now: until that has failed or not, nobody else does. */
static int may_connect(struct db_server *server, struct err *err)
{
    auto_lock held = lock_take(&server->mutex);
    struct mono_us now = clock_mono();
    if (server->connect_at.us == 0)
        return 0;
    if (now.us < server->connect_at.us) {
        *err = server->connect_err;
        return -1;
    }
    server->connect_at.us = now.us + server->connect_us;
    return 0;
}

static void note_attempt(struct db_server *server, const struct err *failure)
{
    auto_lock held = lock_take(&server->mutex);
    server->connect_at.us = failure != NULL ? clock_mono().us + CLOCK_SECOND_US : 0;
    if (failure != NULL)
        server->connect_err = *failure;
}

int postgres_connect_link(struct db_server *server, PGconn **ret, struct err *err)
{
    bool reached = false;
    struct err failure;
    if (may_connect(server, err) < 0)
        return -1;
    if (postgres_connect(server, /* cancel_fd= */ -1, ret, &reached, &failure) == 0) {
        note_attempt(server, NULL);
        require(PQenterPipelineMode(*ret) == 1);
        return 0;
    }
    (void)err_set(err, ERR_BUSY, "the registry's database does not answer");
    (void)err_why(err, "%s%s%s", failure.say, failure.why[0] != '\0' ? ": " : "", failure.why);
    note_attempt(server, err);
    if (!reached)
        postgres_server_lost(server, &failure);
    return -1;
}
