/* Write transactions that are run again when they lost, or when their connection broke. */
#include "db/db_int.h"

#include <sys/random.h>

#define TRIES_MAX 6
#define PAUSE_FIRST_US 4000 /* on average; doubled each time */

static int try_once(struct call *call, struct db *db, int (*body)(struct call *call, void *context),
                    void *context)
{
    auto_conn conn = NULL;
    if (db_write(db, &conn, &call->err) < 0)
        return -1;
    call->db = conn;
    int result = body(call, context);
    call->db = NULL;
    return result < 0 ? -1 : db_commit(TAKE(conn), &call->err);
}

/* At random, because those who met now would meet again. */
static void pause_before(int next_try)
{
    uint32_t number = 0;
    require(getrandom(&number, sizeof(number), 0) == (ssize_t)sizeof(number));
    uint32_t mean_us = (uint32_t)PAUSE_FIRST_US << (next_try - 1);
    (void)usleep(mean_us / 2 + number % mean_us);
}

int db_transact(struct call *call, struct db *db, int (*body)(struct call *call, void *context),
                void *context)
{
    require(call->db == NULL);
    struct mono_us begun = clock_mono();
    for (int tries = 1;; tries++) {
        if (try_once(call, db, body, context) == 0)
            return 0;
        if (call->err.kind != ERR_AGAIN)
            return -1;
        if (tries == TRIES_MAX || clock_since_us(begun) >= db->options.busy_us) {
            call->err.kind = ERR_BUSY;
            return err_why(&call->err, "given up after %d tries", tries);
        }
        pause_before(tries);
    }
}
