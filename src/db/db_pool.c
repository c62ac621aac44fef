/* Connections that are handed out and come back: readers of a local engine, all of a remote one.
 * The latest one back is the first one out, because its caches are warm; so those that a calm hour
 * does not need stay at the bottom. */
#include "db/db_int.h"

void db_pool_open(struct db_pool *pool)
{
    require(pthread_mutex_init(&pool->mutex, NULL) == 0);
    require(pthread_cond_init(&pool->returned, NULL) == 0);
}

void db_pool_close(struct db_pool *pool)
{
    while (pool->idle != NULL) {
        struct db_conn *conn = pool->idle;
        pool->idle = conn->next;
        db_conn_close(conn);
        free(conn);
        pool->n--;
    }
    require(pool->n == 0); /* all were idle */
    (void)pthread_cond_destroy(&pool->returned);
    (void)pthread_mutex_destroy(&pool->mutex);
}

/* *ret is NULL when there is none and the caller has the right to make one. */
static int take(struct db *db, struct db_conn **ret)
{
    struct db_pool *pool = &db->pool;
    struct mono_us deadline = {0};
    auto_lock held = lock_take(&pool->mutex);
    while (pool->idle == NULL && pool->n == db->options.readers) {
        if (deadline.us == 0)
            deadline.us = clock_mono().us + db->options.busy_us;
        pool->waiting++;
        bool in_time = db_wait(&pool->returned, &pool->mutex, deadline);
        pool->waiting--;
        if (!in_time && pool->idle == NULL && pool->n == db->options.readers)
            return -1;
    }
    *ret = pool->idle;
    if (pool->idle != NULL)
        pool->idle = pool->idle->next;
    else
        pool->n++;
    return 0;
}

static void give_back(struct db_pool *pool, struct db_conn *conn)
{
    auto_lock held = lock_take(&pool->mutex);
    if (conn != NULL) {
        conn->next = pool->idle;
        pool->idle = conn;
    } else {
        pool->n--;
    }
    if (pool->waiting > 0)
        require(pthread_cond_signal(&pool->returned) == 0);
}

void db_pool_give_back(struct db *db, struct db_conn *conn)
{
    give_back(&db->pool, conn);
}

/* The one that the caller may make. */
static int make(struct db *db, struct db_conn **ret, struct err *err)
{
    struct db_conn *conn = mem_zalloc(sizeof(*conn));
    if (db_conn_open(db, DB_READER, conn, err) < 0) {
        free(conn);
        give_back(&db->pool, NULL);
        return -1;
    }
    *ret = conn;
    return 0;
}

int db_pool_take(struct db *db, struct db_conn **ret, struct err *err)
{
    const struct db_remote *remote = db->engine->remote;
    struct db_conn *conn = NULL;
    if (take(db, &conn) < 0) {
        (void)err_set(err, ERR_BUSY, "%s", db_say(ERR_BUSY));
        return err_why(err, "all %u %sconnections were in use for %lld ms", db->options.readers,
                       remote == NULL ? "reading " : "", (long long)(db->options.busy_us / 1000));
    }
    if (conn == NULL)
        return make(db, ret, err);
    if (remote != NULL && remote->wake(conn->link, err) < 0) {
        give_back(&db->pool, conn);
        return -1;
    }
    *ret = conn;
    return 0;
}
