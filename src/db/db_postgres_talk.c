/* Round trips. The sockets do not block: a server that is gone without a word is noticed here. */
#include "db/db_postgres_int.h"

#include <poll.h>

/* Bytes that the TLS library has read ahead are seen by no poll: look at them that often. */
#define TLS_LOOK_US 5000

/* Of PostgreSQL's catalogue, src/include/catalog/pg_type.dat. */
enum type {
    TYPE_BOOL = 16,
    TYPE_BYTEA = 17,
    TYPE_NAME = 19,
    TYPE_INT8 = 20,
    TYPE_INT2 = 21,
    TYPE_INT4 = 23,
    TYPE_TEXT = 25,
    TYPE_VARCHAR = 1043,
};

void postgres_answer_done(struct answer *answer)
{
    PQclear(answer->result);
    PQclear(answer->failure);
    *answer = (struct answer){0};
}

int postgres_await(PGconn *pg, struct mono_us deadline, int cancel_fd)
{
    int unsent = PQflush(pg); /* when it fails, what the server said last is still to be read */
    while (PQisBusy(pg)) {
        int64_t left_us = deadline.us - clock_mono().us;
        if (left_us <= 0)
            return -1;
        if (PQsslInUse(pg) && left_us > TLS_LOOK_US)
            left_us = TLS_LOOK_US;
        struct pollfd fds[] = {
            {.fd = PQsocket(pg), .events = (short)(unsent > 0 ? POLLIN | POLLOUT : POLLIN)},
            {.fd = cancel_fd, .events = POLLIN},
        };
        struct timespec left = {.tv_sec = left_us / CLOCK_SECOND_US,
                                .tv_nsec = left_us % CLOCK_SECOND_US * 1000};
        (void)ppoll(fds, ARRAY_SIZE(fds), &left, NULL);
        if (fds[1].revents != 0)
            return -1;
        if ((fds[0].revents != 0 || PQsslInUse(pg)) && PQconsumeInput(pg) == 0)
            return 0;
        if (unsent > 0)
            unsent = PQflush(pg);
    }
    return 0;
}

/* False: this was the last one. */
static bool take_result(PGresult *result, struct answer *answer)
{
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK || status == PGRES_EMPTY_QUERY) {
        answer->committed = strcmp(PQcmdStatus(result), "COMMIT") == 0;
        if (answer->done++ == answer->wanted)
            answer->result = result;
        else
            PQclear(result);
    } else if (status == PGRES_PIPELINE_SYNC) {
        PQclear(result);
        return false;
    } else if (status == PGRES_PIPELINE_ABORTED || answer->failure != NULL) {
        PQclear(result);
    } else {
        answer->failure = result;
    }
    return true;
}

/* `alone`: outside of a pipeline, where NULL is the end. */
static void take_results(PGconn *pg, bool alone, int64_t patience_us, int cancel_fd,
                         struct answer *ret)
{
    for (;;) {
        struct mono_us deadline = {clock_mono().us + patience_us}; /* of each answer */
        if (postgres_await(pg, deadline, cancel_fd) < 0) {
            ret->lost = ret->silent = true;
            return;
        }
        PGresult *result = PQgetResult(pg);
        bool more = result != NULL ? take_result(result, ret) : !alone;
        if (PQstatus(pg) == CONNECTION_BAD) {
            ret->lost = true;
            return;
        }
        if (!more)
            return;
    }
}

void postgres_exchange(PGconn *pg, int64_t patience_us, struct answer *ret)
{
    if (PQpipelineSync(pg) == 0) {
        ret->lost = true;
        return;
    }
    take_results(pg, /* alone= */ false, patience_us, /* cancel_fd= */ -1, ret);
    if (ret->done == 0 && ret->failure == NULL) /* that is no PostgreSQL */
        ret->lost = true;
}

void postgres_ask(PGconn *pg, const char *sql, int n, const char *const *values,
                  int64_t patience_us, int cancel_fd, struct answer *ret)
{
    if (PQsendQueryParams(pg, sql, n, NULL, values, NULL, NULL, /* resultFormat= */ 1) == 0)
        ret->lost = true;
    else
        take_results(pg, /* alone= */ true, patience_us, cancel_fd, ret);
}

void postgres_ask_script(PGconn *pg, const char *sql, int64_t patience_us, struct answer *ret)
{
    if (PQsendQuery(pg, sql) == 0)
        ret->lost = true;
    else
        take_results(pg, /* alone= */ true, patience_us, /* cancel_fd= */ -1, ret);
}

/* Network byte order, two's complement. */
static int64_t read_int(const char *p, int n)
{
    uint64_t value = p[0] < 0 ? UINT64_MAX : 0;
    for (int i = 0; i < n; i++)
        value = value << 8 | (unsigned char)p[i];
    return (int64_t)value;
}

static int64_t read_digits(struct str text)
{
    bool negative = text.n > 0 && text.p[0] == '-';
    uint64_t value = 0;
    text = str_from_at(text, negative ? 1 : 0);
    if (!str_eat_u64(&text, (uint64_t)INT64_MAX + (negative ? 1 : 0), &value))
        return 0;
    return (int64_t)(negative ? 0 - value : value);
}

int64_t postgres_int(const PGresult *result, int row, int column)
{
    const char *p = PQgetvalue(result, row, column);
    int n = PQgetlength(result, row, column);
    if (n == 0)
        return 0;
    switch (PQftype(result, column)) {
    case TYPE_BOOL:
    case TYPE_INT2:
    case TYPE_INT4:
    case TYPE_INT8:
        return read_int(p, n);
    case TYPE_TEXT:
    case TYPE_VARCHAR:
        return read_digits((struct str){p, (size_t)n});
    default:
        db_broken("not an integer", PQfname(result, column));
    }
}

void postgres_check_bytes(const PGresult *result, int column)
{
    switch (PQftype(result, column)) {
    case TYPE_TEXT:
    case TYPE_VARCHAR:
    case TYPE_NAME:
    case TYPE_BYTEA:
        return;
    default:
        db_broken("neither text nor bytes", PQfname(result, column));
    }
}
