/* Group commit: one writing connection, handed from thread to thread, and one flush for many.
 *
 * The states, from the writer's point of view:
 *
 *   idle    nobody holds the connection, nothing is open, nobody queues
 *   held    one thread, the owner, has the connection; others queue
 *
 *   begin   idle -> held, or queue until an owner hands the connection over.
 *           The owner opens the engine's transaction unless it is open, and its own savepoint.
 *   commit  The owner releases its savepoint, becomes a member of the group, and leaves.
 *           It returns when the group has ended, with the group's result.
 *   undo    The owner rolls back to its savepoint and leaves.
 *   leave   Somebody queues and the group is young and small: hand over, still open.
 *           Otherwise end the group - commit when it has members, else roll back - tell the
 *           members, and hand over closed, or go idle.
 *   doom    The engine gave the transaction up (disk full, say). The owner can only fail; when it
 *           leaves, the group ends and every member is told.
 *
 * What makes it safe: an open transaction always has an owner. It passes directly from owner to
 * owner (a waiter whose time is up while it is handed over has become the owner), so a group that
 * waits for its commit cannot be forgotten; and whoever owns it last ends it, even by db_end. */
#include "db/db_int.h"

#include <signal.h>

/* What bounds the wait of the first member: that many transactions, or that long. */
#define MEMBERS_MAX 64
#define AGE_MAX_US 10000

struct db_waiter {
    struct db_waiter *next;
    bool alone; /* wants the connection without an open transaction */
    bool granted;
    pthread_cond_t cond;
};

/* On the stack of a thread that sleeps in db_commit. */
struct db_member {
    struct db_member *next;
    struct err *err;
    int result;
    bool done;
};

static void queue_add(struct db_group *group, struct db_waiter *waiter)
{
    if (group->first == NULL)
        group->first = waiter;
    else
        group->last->next = waiter;
    group->last = waiter;
}

static void queue_remove(struct db_group *group, struct db_waiter *waiter)
{
    struct db_waiter *before = NULL;
    struct db_waiter **at = &group->first;
    while (*at != waiter) {
        before = *at;
        at = &(*at)->next;
    }
    *at = waiter->next;
    if (group->last == waiter)
        group->last = before;
}

static int acquire(struct db_group *group, bool alone, struct mono_us deadline)
{
    auto_lock held = lock_take(&group->mutex);
    if (!group->held) {
        group->held = true;
        return 0;
    }
    struct db_waiter self = {.alone = alone, .cond = PTHREAD_COND_INITIALIZER};
    queue_add(group, &self);
    while (!self.granted && db_wait(&self.cond, &group->mutex, deadline))
        ;
    if (!self.granted)
        queue_remove(group, &self);
    return self.granted ? 0 : -1;
}

/* The mutex is held, and so is the connection. */
static void hand_over(struct db_group *group)
{
    struct db_waiter *next = group->first;
    if (next == NULL) {
        group->held = false;
        return;
    }
    queue_remove(group, next);
    next->granted = true;
    require(pthread_cond_signal(&next->cond) == 0);
}

static bool may_grow(const struct db_group *group)
{
    return group->open && !group->doomed && group->first != NULL && !group->first->alone &&
           group->n_members < MEMBERS_MAX &&
           (group->n_members == 0 || clock_since_us(group->asleep_since) < AGE_MAX_US);
}

static int end_transaction(struct db *db, struct err *err)
{
    struct db_group *group = &db->group;
    struct db_link *link = group->conn.link;
    if (!group->open)
        return 0;
    group->open = false;
    if (!group->doomed && group->members != NULL) {
        crash_point("db.before_commit");
        int result = db->engine->commit(link, (struct str){0}, err);
        crash_point("db.after_commit");
        return result;
    }
    if (db->engine->in_transaction(link))
        db->engine->rollback(link);
    if (!group->doomed)
        return 0;
    group->doomed = false;
    *err = group->doom;
    return -1;
}

static void leave(struct db *db)
{
    struct db_group *group = &db->group;
    {
        auto_lock held = lock_take(&group->mutex);
        if (may_grow(group)) {
            hand_over(group);
            return;
        }
    }
    struct err err;
    int result = end_transaction(db, &err);

    auto_lock held = lock_take(&group->mutex);
    for (struct db_member *member = group->members, *next; member != NULL; member = next) {
        next = member->next; /* its thread may return as soon as the mutex is free */
        member->result = result;
        if (result < 0)
            *member->err = err;
        member->done = true;
    }
    if (group->members != NULL) {
        require(pthread_cond_broadcast(&group->finished) == 0);
        if (db->engine->wants_tidy(group->conn.link)) {
            group->tidy_due = true;
            require(pthread_cond_signal(&group->tidy_wanted) == 0);
        }
    }
    group->members = NULL;
    group->n_members = 0;
    hand_over(group);
}

int db_group_alive(const struct db *db, struct err *err)
{
    if (!db->group.doomed)
        return 0;
    *err = db->group.doom;
    return -1;
}

void db_group_failed(struct db *db, const struct err *err)
{
    struct db_group *group = &db->group;
    if (!group->open || group->doomed || db->engine->in_transaction(group->conn.link))
        return;
    group->doom = *err;
    group->doom.details = NULL;
    group->doom.n_details = 0;
    (void)err_why(&group->doom, "the transaction was rolled back, and all that shared its commit");
    group->doomed = true;
}

int db_group_begin(struct db *db, struct err *err)
{
    struct db_group *group = &db->group;
    struct mono_us now = clock_mono();
    struct mono_us deadline = {now.us + db->options.busy_us};
    if (acquire(group, /* alone= */ false, deadline) < 0) {
        (void)err_set(err, ERR_BUSY, "the registry's database is busy");
        return err_why(err, "waited %lld ms for the writing connection",
                       (long long)(db->options.busy_us / 1000));
    }
    if (!group->open) {
        now = clock_mono();
        int64_t left_us = deadline.us > now.us ? deadline.us - now.us : 0;
        if (db->engine->begin(group->conn.link, left_us, err) < 0) {
            leave(db);
            return -1;
        }
        group->open = true;
    }
    if (db->engine->save(group->conn.link, err) < 0) {
        db_group_failed(db, err);
        leave(db);
        return -1;
    }
    return 0;
}

/* Takes back what the owner did. When not even that works the whole group must go. */
static void undo(struct db *db)
{
    struct db_group *group = &db->group;
    struct err err;
    if (group->doomed || db->engine->undo(group->conn.link, &err) == 0)
        return;
    if (db->engine->in_transaction(group->conn.link))
        db->engine->rollback(group->conn.link);
    db_group_failed(db, &err);
}

void db_group_undo(struct db *db)
{
    undo(db);
    leave(db);
}

int db_group_commit(struct db *db, struct err *err)
{
    struct db_group *group = &db->group;
    int result = db_group_alive(db, err);
    if (result == 0 && db->engine->release(group->conn.link, err) < 0) {
        db_group_failed(db, err);
        undo(db);
        result = -1;
    }
    if (result < 0) {
        leave(db);
        return -1;
    }
    struct db_member self = {.next = group->members, .err = err};
    if (group->n_members == 0)
        group->asleep_since = clock_mono();
    group->members = &self;
    group->n_members++;
    leave(db);

    auto_lock held = lock_take(&group->mutex);
    while (!self.done)
        require(pthread_cond_wait(&group->finished, &group->mutex) == 0);
    return self.result;
}

static int tidy(struct db *db, struct db_link **link, struct err *err)
{
    if (*link == NULL && db->engine->connect(&db->options, NULL, DB_TIDIER, link, err) < 0)
        return -1;
    bool again = false;
    if (db->engine->tidy(*link, &again, err) < 0)
        return -1;
    if (!again)
        return 0;
    /* Writers add to the log as fast as it is written back: stop them for the little that is left.
     */
    require(acquire(&db->group, /* alone= */ true, (struct mono_us){INT64_MAX}) == 0);
    int result = db->engine->tidy(*link, &again, err);
    leave(db);
    return result;
}

static void *tidier(void *context)
{
    struct db *db = context;
    struct db_group *group = &db->group;
    struct db_link *link = NULL;
    for (;;) {
        {
            auto_lock held = lock_take(&group->mutex);
            while (!group->tidy_due && !group->stop)
                require(pthread_cond_wait(&group->tidy_wanted, &group->mutex) == 0);
            if (group->stop)
                break;
            group->tidy_due = false;
        }
        struct err err;
        if (tidy(db, &link, &err) < 0) /* nobody called: it is logged here or nowhere */
            log_err(LOG_LEVEL_WARN, "the database's log could not be written back", &err);
    }
    if (link != NULL)
        db->engine->disconnect(link);
    return NULL;
}

/* Signals belong to the threads that wait for them. */
static int start_tidier(struct db *db)
{
    sigset_t all;
    sigset_t before;
    (void)sigfillset(&all);
    require(pthread_sigmask(SIG_SETMASK, &all, &before) == 0);
    int failed = pthread_create(&db->group.tidier, NULL, tidier, db);
    require(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
    if (failed == 0)
        (void)pthread_setname_np(db->group.tidier, "db-tidier");
    return failed;
}

int db_group_open(struct db *db, struct err *err)
{
    struct db_group *group = &db->group;
    require(pthread_mutex_init(&group->mutex, NULL) == 0);
    require(pthread_cond_init(&group->finished, NULL) == 0);
    require(pthread_cond_init(&group->tidy_wanted, NULL) == 0);
    if (db_conn_open(db, DB_WRITER, &group->conn, err) < 0)
        return -1;
    int failed = start_tidier(db);
    if (failed == 0)
        return 0;
    db_conn_close(&group->conn);
    return err_set(err, ERR_IO, "could not start a thread for the database: %s",
                   strerrordesc_np(failed));
}

void db_group_close(struct db *db)
{
    struct db_group *group = &db->group;
    {
        auto_lock held = lock_take(&group->mutex);
        group->stop = true;
        require(pthread_cond_signal(&group->tidy_wanted) == 0);
    }
    require(pthread_join(group->tidier, NULL) == 0);
    require(!group->held);
    db_conn_close(&group->conn);
    (void)pthread_cond_destroy(&group->tidy_wanted);
    (void)pthread_cond_destroy(&group->finished);
    (void)pthread_mutex_destroy(&group->mutex);
}
