/* The server as all connections to it see it: where it is, what its clock says, whether it is away.
 *
 * While it is away nobody waits for it but the keeper: calls fail at once. And attempts to connect
 * that failed are not repeated for a second, lest every thread sit in one of its own. */
#include "db/db_postgres_int.h"

#define CONNECT_DEFAULT_US (5 * CLOCK_SECOND_US)
#define CONNECT_LONGEST_S 60
#define CLOCK_OLD_US (30 * CLOCK_SECOND_US) /* quartz drifts by a millisecond or two until then */

/* What the URL says that libpq leaves to its callers. */
static int64_t connect_us_of(const PQconninfoOption *settings)
{
    int64_t each_us = CONNECT_DEFAULT_US;
    int64_t hosts = 1;
    for (const PQconninfoOption *it = settings; it->keyword != NULL; it++) {
        struct str value = str_from(it->val);
        uint64_t seconds = 0;
        if (strcmp(it->keyword, "host") == 0)
            for (size_t i = 0; i < value.n; i++)
                hosts += value.p[i] == ',';
        if (strcmp(it->keyword, "connect_timeout") == 0 &&
            str_eat_u64(&value, CONNECT_LONGEST_S, &seconds) && seconds > 0)
            each_us = (int64_t)seconds * CLOCK_SECOND_US;
    }
    return each_us * hosts;
}

/* A password with a bare '@', '/' or '?' in it is cut there, and its end becomes something that
 * error messages quote. */
static bool is_cut_wrongly(const PQconninfoOption *settings)
{
    for (const PQconninfoOption *it = settings; it->keyword != NULL; it++) {
        struct str value = str_from(it->val);
        bool address = strcmp(it->keyword, "host") == 0 || strcmp(it->keyword, "dbname") == 0;
        if (address && (str_find(value, '@') < value.n || str_find(value, '?') < value.n))
            return true;
        if (strcmp(it->keyword, "port") == 0 && it->val != NULL &&
            it->val[strspn(it->val, "0123456789,")] != '\0')
            return true;
    }
    return false;
}

int postgres_server_read(struct db_server *server, struct err *err)
{
    struct str url = str_from(server->url);
    bool ours = str_starts(url, STR("postgres://")) || str_starts(url, STR("postgresql://"));
    char *reason = NULL;
    PQconninfoOption *settings = ours ? PQconninfoParse(server->url, &reason) : NULL;
    PQfreemem(reason); /* it quotes what may be a piece of the password */
    bool good = settings != NULL && !is_cut_wrongly(settings);
    if (good)
        server->connect_us = connect_us_of(settings);
    PQconninfoFree(settings);
    if (good)
        return 0;
    return err_set(err, ERR_INVALID,
                   "the URL of the database is not one: it must be like "
                   "postgres://USER:PASSWORD@HOST:PORT/NAME?sslmode=verify-full, with special "
                   "characters of the password as %%40 for @, %%2F for / and so on");
}

int postgres_server_there(struct db_server *server, struct err *err)
{
    if (!atomic_load_explicit(&server->away, memory_order_relaxed))
        return 0;
    auto_lock held = lock_take(&server->mutex);
    *err = server->away_err;
    return -1;
}

void postgres_server_lost(struct db_server *server, const struct err *why)
{
    auto_lock held = lock_take(&server->mutex);
    (void)err_set(&server->away_err, ERR_BUSY, "the registry's database does not answer");
    (void)err_why(&server->away_err, "%s%s%s", why->say, why->why[0] != '\0' ? ": " : "", why->why);
    if (!atomic_exchange(&server->away, true))
        log_say(LOG_LEVEL_ERROR, "the database is away", LOG_Z("why", server->away_err.why));
}

void postgres_server_back(struct db_server *server)
{
    if (!atomic_load(&server->away))
        return;
    auto_lock held = lock_take(&server->mutex);
    if (atomic_exchange(&server->away, false))
        log_say(LOG_LEVEL_INFO, "the database is back");
    server->connect_at = (struct mono_us){0};
}

/* The quickest answer is the most exact one. */
void postgres_clock_note(struct db_server *server, int64_t wall_us, struct mono_us asked,
                         struct mono_us answered)
{
    auto_lock held = lock_take(&server->mutex);
    int64_t round_us = answered.us - asked.us;
    bool old = server->clock_asked.us == 0 || asked.us - server->clock_asked.us > CLOCK_OLD_US;
    if (!old && round_us > server->clock_round_us)
        return;
    server->clock_round_us = round_us;
    server->clock_asked = asked;
    atomic_store(&server->clock_offset_us, wall_us - (asked.us + round_us / 2));
}
