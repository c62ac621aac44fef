/* The keeper: one thread with a connection of its own, from db_open to db_close.
 *
 *   connect   again and again until it succeeds, and LISTEN
 *   tell      that some notices may have been missed, unless it is the first connection
 *   guard     take the guard's lock, when one is wanted
 *   beat      ask the server for its time, a few times a second. The answer comes behind the
 * notices of what was committed before the question. It also shows that the server is there; one
 *             that stays out says that it is away.
 *
 * A connection that broke, or whose guard was taken by another in the meantime, begins again. */
#include "db/db_postgres_int.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>

#define BEAT_US 250000
#define TOLD_US 900000  /* how old the question may be whose answer is the latest */
#define RETRY_US 200000 /* between attempts to connect */
#define SILENCE_MIN_US (2 * CLOCK_SECOND_US)
#define SILENCE_MAX_US (5 * CLOCK_SECOND_US)
#define GUARD_TRIES 10 /* who ends now holds it a moment longer */
#define GUARD_PAUSE_US 100000

enum guard { GUARD_NONE, GUARD_SHARED, GUARD_ALONE };

struct keeper {
    struct db_server *server; /* borrowed */
    pthread_t thread;
    int wake_fd; /* readable: look at what stands below the mutex */
    int stop_fd; /* readable from the end on: give up what you wait for */
    /* Of the thread: */
    PGconn *pg;      /* owned; NULL: none */
    bool greeted;    /* not the first connection */
    bool refused;    /* the server is there, but takes no connection of ours: said once */
    enum guard held; /* by this connection */

    _Atomic int64_t asked_us; /* monotonic: the latest question that was answered; 0: none */

    pthread_mutex_t mutex; /* guards what stands below */
    pthread_cond_t tried;
    void (*told)(void *context, struct str payload);
    void *told_context;
    enum guard wanted;
    bool trying; /* db_guard waits for the outcome */
    bool taken;  /* and this is it */
};

static bool stopping(const struct keeper *keeper)
{
    struct pollfd fd = {.fd = keeper->stop_fd, .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void tell(struct keeper *keeper, struct str payload)
{
    void (*told)(void *context, struct str payload) = NULL;
    void *context = NULL;
    {
        auto_lock held = lock_take(&keeper->mutex);
        told = keeper->told;
        context = keeper->told_context;
    }
    if (told != NULL)
        told(context, payload);
}

static void tell_all(struct keeper *keeper)
{
    for (PGnotify *notice = PQnotifies(keeper->pg); notice != NULL;
         notice = PQnotifies(keeper->pg)) {
        tell(keeper, str_from(notice->extra));
        PQfreemem(notice);
    }
}

static int64_t silence_us(const struct keeper *keeper)
{
    int64_t half_us = keeper->server->busy_us / 2;
    if (half_us < SILENCE_MIN_US)
        return SILENCE_MIN_US;
    return half_us < SILENCE_MAX_US ? half_us : SILENCE_MAX_US;
}

/* Asks for one row; *ret is the integer in it. */
static int ask(struct keeper *keeper, const char *sql, int64_t *ret, struct err *err)
{
    auto_answer answer = {0};
    postgres_ask(keeper->pg, sql, 0, NULL, silence_us(keeper), keeper->stop_fd, &answer);
    tell_all(keeper);
    if (answer.failure != NULL)
        return postgres_failed(answer.failure, ERR_BUSY, sql, err);
    if (answer.silent)
        return err_set(err, ERR_TIMEOUT, "the database does not answer");
    if (answer.lost)
        return err_set(err, ERR_BUSY, "the connection to the database broke");
    *ret = PQntuples(answer.result) > 0 ? postgres_int(answer.result, 0, 0) : 0;
    return 0;
}

static int beat(struct keeper *keeper, struct err *err)
{
    static const char sql[] =
        "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)";
    struct mono_us asked = clock_mono();
    int64_t wall_us = 0;
    if (ask(keeper, sql, &wall_us, err) < 0)
        return -1;
    postgres_clock_note(keeper->server, wall_us, asked, clock_mono());
    atomic_store(&keeper->asked_us, asked.us);
    postgres_server_back(keeper->server);
    return 0;
}

static int try_guard(struct keeper *keeper, enum guard wanted, bool *ret_taken, struct err *err)
{
    static const char *const sql[] = {
        [GUARD_SHARED] =
            "SELECT pg_try_advisory_lock_shared(" POSTGRES_LOCK_CLASS ", " POSTGRES_LOCK_GUARD ")",
        [GUARD_ALONE] =
            "SELECT pg_try_advisory_lock(" POSTGRES_LOCK_CLASS ", " POSTGRES_LOCK_GUARD ")",
    };
    int64_t taken = 0;
    if (ask(keeper, sql[wanted], &taken, err) < 0)
        return -1;
    *ret_taken = taken != 0;
    return 0;
}

static int guard_failed(bool alone, struct err *err)
{
    return err_set(err, ERR_BUSY,
                   alone ? "the database is in use by other holdfast processes; stop them first"
                         : "the database is taken by a holdfast process that needs it alone; wait "
                           "until that has ended");
}

/* Takes the guard that is wanted and not held. Without it the database is as good as away. */
static int keep_guard(struct keeper *keeper, struct err *err)
{
    enum guard wanted = GUARD_NONE;
    bool trying = false;
    {
        auto_lock held = lock_take(&keeper->mutex);
        wanted = keeper->wanted;
        trying = keeper->trying;
    }
    if (wanted == GUARD_NONE || wanted == keeper->held)
        return 0;
    bool taken = false;
    if (try_guard(keeper, wanted, &taken, err) < 0)
        return -1;
    if (taken)
        keeper->held = wanted;
    if (!trying)
        return taken ? 0 : guard_failed(wanted == GUARD_ALONE, err);
    auto_lock held = lock_take(&keeper->mutex);
    keeper->trying = false;
    keeper->taken = taken;
    if (!taken)
        keeper->wanted = GUARD_NONE;
    require(pthread_cond_broadcast(&keeper->tried) == 0);
    return 0;
}

static void disconnect(struct keeper *keeper)
{
    PQfinish(keeper->pg);
    keeper->pg = NULL;
    keeper->held = GUARD_NONE;
    atomic_store(&keeper->asked_us, 0);
}

/* LISTEN comes first: what is committed from here on is told, and who looked before is told that he
 * may have missed something. */
static int greet(struct keeper *keeper, struct err *err)
{
    int64_t nothing = 0;
    if (ask(keeper, "LISTEN holdfast", &nothing, err) < 0)
        return -1;
    if (keeper->greeted)
        tell(keeper, (struct str){0});
    keeper->greeted = true;
    return 0;
}

/* *ret_refused: the server said no by itself, when it has too many connections, say. */
static int connect_again(struct keeper *keeper, bool *ret_refused, struct err *err)
{
    if (postgres_connect(keeper->server, keeper->stop_fd, &keeper->pg, ret_refused, err) < 0)
        return -1;
    *ret_refused = false;
    return greet(keeper, err);
}

/* Sleeps until the next beat, and tells what comes. */
static void sleep_until(struct keeper *keeper, struct mono_us until)
{
    for (;;) {
        int64_t left_us = until.us - clock_mono().us;
        if (left_us <= 0)
            return;
        struct pollfd fds[] = {
            {.fd = keeper->wake_fd, .events = POLLIN},
            {.fd = keeper->stop_fd, .events = POLLIN},
            {.fd = keeper->pg != NULL ? PQsocket(keeper->pg) : -1, .events = POLLIN},
        };
        (void)poll(fds, ARRAY_SIZE(fds), (int)(left_us / 1000) + 1);
        eventfd_t count;
        if (fds[0].revents != 0)
            (void)eventfd_read(keeper->wake_fd, &count);
        if (fds[0].revents != 0 || fds[1].revents != 0)
            return;
        if (fds[2].revents == 0)
            continue;
        if (PQconsumeInput(keeper->pg) == 0) /* the next beat says why */
            return;
        tell_all(keeper);
    }
}

static void *keep(void *context)
{
    struct keeper *keeper = context;
    while (!stopping(keeper)) {
        struct mono_us begun = clock_mono();
        struct err err;
        bool is_new = keeper->pg == NULL;
        bool refused = false;
        bool there = !is_new || connect_again(keeper, &refused, &err) == 0;
        if (there && keep_guard(keeper, &err) == 0 && beat(keeper, &err) == 0) {
            keeper->refused = false;
            sleep_until(keeper, (struct mono_us){begun.us + BEAT_US});
            continue;
        }
        disconnect(keeper);
        if (stopping(keeper) || (!is_new && err.kind != ERR_TIMEOUT))
            continue; /* one that broke says nothing yet: the next one will */
        if (!refused)
            postgres_server_lost(keeper->server, &err);
        else if (!keeper->refused)
            log_err(LOG_LEVEL_ERROR, "the database takes no connection for notices", &err);
        keeper->refused = refused;
        sleep_until(keeper, (struct mono_us){clock_mono().us + RETRY_US});
    }
    disconnect(keeper);
    return NULL;
}

/* Signals belong to the threads that wait for them. */
static int start(struct keeper *keeper)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    require(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    int failed = pthread_create(&keeper->thread, NULL, keep, keeper);
    require(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (failed == 0)
        (void)pthread_setname_np(keeper->thread, "db-keeper");
    return failed;
}

static void keeper_free(struct keeper *keeper)
{
    PQfinish(keeper->pg);
    (void)close(keeper->wake_fd);
    (void)close(keeper->stop_fd);
    (void)pthread_cond_destroy(&keeper->tried);
    (void)pthread_mutex_destroy(&keeper->mutex);
    free(keeper);
}

int postgres_keeper_start(struct db_server *server, PGconn *pg, struct err *err)
{
    struct keeper *keeper = mem_zalloc(sizeof(*keeper));
    keeper->server = server;
    keeper->pg = pg;
    keeper->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    keeper->stop_fd = eventfd(0, EFD_CLOEXEC);
    require(pthread_mutex_init(&keeper->mutex, NULL) == 0);
    require(pthread_cond_init(&keeper->tried, NULL) == 0);
    int result = keeper->wake_fd < 0 || keeper->stop_fd < 0
                     ? err_sys(err, "could not make an eventfd for the database")
                     : greet(keeper, err);
    if (result == 0)
        result = beat(keeper, err);
    int failed = result == 0 ? start(keeper) : 0;
    if (failed != 0)
        result = err_set(err, ERR_IO, "could not start a thread for the database: %s",
                         strerrordesc_np(failed));
    if (result < 0)
        keeper_free(keeper);
    else
        server->keeper = keeper;
    return result;
}

void postgres_keeper_stop(struct db_server *server)
{
    struct keeper *keeper = server->keeper;
    require(eventfd_write(keeper->stop_fd, 1) == 0);
    require(pthread_join(keeper->thread, NULL) == 0);
    keeper_free(keeper);
}

void postgres_keeper_listen(struct db_server *server,
                            void (*told)(void *context, struct str payload), void *context)
{
    struct keeper *keeper = server->keeper;
    auto_lock held = lock_take(&keeper->mutex);
    keeper->told_context = context;
    keeper->told = told;
}

bool postgres_keeper_is_told(const struct db_server *server)
{
    int64_t asked_us = atomic_load_explicit(&server->keeper->asked_us, memory_order_acquire);
    return asked_us != 0 && clock_mono().us - asked_us < TOLD_US;
}

/* Once: 0, and *ret_taken. */
static int ask_keeper(struct keeper *keeper, enum guard wanted, bool *ret_taken, struct err *err)
{
    struct mono_us deadline = {clock_mono().us + keeper->server->busy_us + SILENCE_MIN_US};
    auto_lock held = lock_take(&keeper->mutex);
    keeper->wanted = wanted;
    keeper->trying = true;
    require(eventfd_write(keeper->wake_fd, 1) == 0);
    while (keeper->trying && db_wait(&keeper->tried, &keeper->mutex, deadline))
        ;
    if (!keeper->trying) {
        *ret_taken = keeper->taken;
        return 0;
    }
    keeper->trying = false;
    keeper->wanted = GUARD_NONE;
    return err_set(err, ERR_BUSY, "the database does not answer");
}

int postgres_keeper_guard(struct db_server *server, bool alone, struct err *err)
{
    struct keeper *keeper = server->keeper;
    bool taken = false;
    for (int i = 0; i < GUARD_TRIES && !taken; i++) {
        if (i > 0)
            (void)usleep(GUARD_PAUSE_US);
        if (ask_keeper(keeper, alone ? GUARD_ALONE : GUARD_SHARED, &taken, err) < 0)
            return -1;
    }
    return taken ? 0 : guard_failed(alone, err);
}
