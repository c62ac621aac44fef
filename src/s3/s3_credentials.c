/* The keys of a client, and the thread that renews those that expire: it alone asks for them, so
 * that a hundred callers never do so at the same time. It starts when keys are first wanted. */
#include "s3/s3_int.h"

#include <errno.h>

#define RENEW_BEFORE_US (15 * 60 * CLOCK_SECOND_US)
#define RENEW_AGAIN_US (60 * CLOCK_SECOND_US) /* after keys that are no newer, or a failure */
#define RETRY_FIRST_US (CLOCK_SECOND_US / 4)
#define VALID_MARGIN_US (10 * CLOCK_SECOND_US)

struct s3_source {
    enum s3_source_kind kind;
    struct s3_places places;
    struct fetch *fetch; /* owned; NULL for static keys */
    int64_t patience_us;

    pthread_mutex_t mutex;  /* of what follows */
    pthread_cond_t work;    /* for the thread */
    pthread_cond_t changed; /* for those who wait for keys */
    struct s3_keys *keys;   /* a reference of its own; NULL: none yet, or refused */
    struct err err;         /* why there are none */
    unsigned failures;      /* in a row */
    uint64_t attempts;
    struct mono_us next; /* attempt */
    struct mono_us give_up;
    bool wanted; /* somebody waits */
    bool stopping;
    bool has_thread;
    pthread_t thread;
};

/* ---- References; with the mutex held ---- */

static void drop(struct s3_keys *keys)
{
    if (keys != NULL && --keys->references == 0)
        s3_keys_free(keys);
}

static bool is_valid(const struct s3_keys *keys)
{
    return keys != NULL &&
           (keys->expires.us == 0 || keys->expires.us - clock_wall().us > VALID_MARGIN_US);
}

/* ---- The thread ---- */

static int64_t renew_in_us(const struct s3_keys *keys)
{
    int64_t left = keys->expires.us - clock_wall().us;
    int64_t in = left - RENEW_BEFORE_US;
    if (in > 0)
        return in;
    /* They come when they are about to expire, or live for less than that. */
    return left / 4 < RENEW_AGAIN_US ? (left / 4 > CLOCK_SECOND_US ? left / 4 : CLOCK_SECOND_US)
                                     : RENEW_AGAIN_US;
}

static int64_t retry_in_us(unsigned failures, bool has_keys)
{
    int64_t us = RETRY_FIRST_US << (failures < 8 ? failures - 1 : 7);
    int64_t most = has_keys ? RENEW_AGAIN_US : 5 * CLOCK_SECOND_US;
    return us < most ? us : most;
}

/* True: it is time for an attempt. False: the end. */
static bool wait_for_work(struct s3_source *source)
{
    auto_lock held = lock_take(&source->mutex);
    for (;;) {
        if (source->stopping)
            return false;
        int64_t us = source->next.us - clock_mono().us;
        if (us <= 0 && (source->wanted || source->keys != NULL))
            return true;
        if (source->keys == NULL && !source->wanted) {
            require(pthread_cond_wait(&source->work, &source->mutex) == 0);
            continue;
        }
        struct timespec until = {.tv_sec = source->next.us / CLOCK_SECOND_US,
                                 .tv_nsec = source->next.us % CLOCK_SECOND_US * 1000};
        (void)pthread_cond_timedwait(&source->work, &source->mutex, &until);
    }
}

static void publish(struct s3_source *source, struct s3_keys *keys)
{
    auto_lock held = lock_take(&source->mutex);
    drop(source->keys);
    keys->references = 1;
    source->keys = keys;
    source->failures = 0;
    source->attempts++;
    source->wanted = false;
    source->next = (struct mono_us){clock_mono().us + renew_in_us(keys)};
    (void)pthread_cond_broadcast(&source->changed);
}

/* Who waits may give up, or wait for the next attempt. */
static void publish_failure(struct s3_source *source, const struct err *err)
{
    bool has_keys;
    {
        auto_lock held = lock_take(&source->mutex);
        source->err = *err;
        source->failures++;
        source->attempts++;
        source->wanted = false;
        has_keys = is_valid(source->keys);
        source->next = (struct mono_us){clock_mono().us + retry_in_us(source->failures, has_keys)};
        (void)pthread_cond_broadcast(&source->changed);
    }
    log_err(has_keys ? LOG_LEVEL_WARN : LOG_LEVEL_ERROR,
            "credentials of the object store could not be renewed", err);
}

static void *renew(void *context)
{
    struct s3_source *source = context;
    while (wait_for_work(source)) {
        auto_call call;
        call_init(&call);
        struct s3_keys *keys = NULL;
        if (s3_obtain(&call, source->fetch, source->kind, &source->places, &keys) < 0)
            publish_failure(source, &call.err);
        else
            publish(source, keys);
    }
    return NULL;
}

/* With the mutex held. */
static int start(struct s3_source *source, struct err *err)
{
    if (source->has_thread)
        return 0;
    int number = pthread_create(&source->thread, NULL, renew, source);
    if (number != 0) {
        errno = number;
        return err_sys(err, "could not start the thread for credentials");
    }
    (void)pthread_setname_np(source->thread, "s3-credentials");
    source->has_thread = true;
    return 0;
}

/* ---- Its callers ---- */

static int fail(const struct s3_source *source, struct err *err)
{
    if (source->failures > 0) {
        *err = source->err;
        return -1;
    }
    return err_set(err, ERR_BUSY, "credentials for the object store are not here yet");
}

/* With the mutex held. */
static void want(struct s3_source *source)
{
    if (!source->wanted)
        (void)pthread_cond_signal(&source->work);
    source->wanted = true;
}

/* With the mutex held, which it gives up meanwhile. False: the time is over. */
static bool wait_for_change(struct s3_source *source, struct mono_us end)
{
    int64_t us = end.us < source->give_up.us ? end.us : source->give_up.us;
    const struct timespec until = {.tv_sec = us / CLOCK_SECOND_US,
                                   .tv_nsec = us % CLOCK_SECOND_US * 1000};
    return pthread_cond_timedwait(&source->changed, &source->mutex, &until) != ETIMEDOUT;
}

/* The same. */
static int wait_for_keys(struct s3_source *source, struct err *err)
{
    const struct mono_us end = {clock_mono().us + source->patience_us};
    uint64_t seen = source->attempts;
    while (!is_valid(source->keys)) {
        if (source->attempts > seen && source->failures > 0 && source->err.kind != ERR_BUSY)
            return fail(source, err); /* another attempt would change nothing */
        want(source);
        if (!wait_for_change(source, end) && !is_valid(source->keys))
            return fail(source, err);
    }
    return 0;
}

int s3_keys_get(struct s3_source *source, bool waits, struct s3_keys **ret, struct err *err)
{
    auto_lock held = lock_take(&source->mutex);
    if (source->fetch != NULL && start(source, err) < 0)
        return -1;
    if (!is_valid(source->keys)) {
        if (!waits) {
            want(source);
            return fail(source, err);
        }
        if (wait_for_keys(source, err) < 0)
            return -1;
    }
    source->keys->references++;
    *ret = source->keys;
    return 0;
}

void s3_keys_give(struct s3_source *source, struct s3_keys *keys)
{
    auto_lock held = lock_take(&source->mutex);
    drop(keys);
}

bool s3_keys_refused(struct s3_source *source, const struct s3_keys *keys)
{
    if (source->fetch == NULL)
        return false;
    auto_lock held = lock_take(&source->mutex);
    if (source->keys == keys) {
        drop(source->keys);
        source->keys = NULL;
        source->next = clock_mono();
    }
    return true;
}

/* ---- Beginning and end ---- */

static struct s3_keys *static_keys(const char *access, const char *secret, const char *token)
{
    struct s3_keys *keys = mem_zalloc(sizeof(*keys));
    keys->references = 1;
    keys->access = mem_strdup(access);
    keys->secret = mem_strdup(secret);
    keys->token = token != NULL && token[0] != '\0' ? mem_strdup(token) : NULL;
    return keys;
}

static bool is_key(const char *text, size_t max)
{
    for (const char *p = text; *p != '\0'; p++)
        if (*p <= ' ' || *p > '~')
            return false;
    return strlen(text) <= max;
}

/* *ret NULL: there are none. */
static int find_static_keys(const struct s3_source_options *options, struct s3_keys **ret,
                            struct err *err)
{
    const char *access = options->access_key;
    const char *secret = options->secret_key;
    const char *token = "";
    bool configured = access[0] != '\0' || secret[0] != '\0';
    if (!configured) {
        const char *names[] = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"};
        const char *values[ARRAY_SIZE(names)];
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
            values[i] = getenv(names[i]);
            values[i] = values[i] != NULL ? values[i] : "";
        }
        access = values[0];
        secret = values[1];
        token = values[2];
    }
    if (access[0] == '\0' && secret[0] == '\0') {
        *ret = NULL;
        return 0;
    }
    if (access[0] == '\0' || secret[0] == '\0')
        return err_set(err, ERR_INVALID, "%s is set, and %s is not",
                       access[0] != '\0' ? "the access key of the object store"
                                         : "the secret key of the object store",
                       access[0] != '\0' ? "its secret key" : "its access key");
    if (!is_key(access, 1024) || !is_key(secret, 1024) || !is_key(token, 16384))
        return err_set(err, ERR_INVALID,
                       "the keys of the object store contain a space or another character that "
                       "keys never have, or are too long");
    *ret = static_keys(access, secret, token);
    return 0;
}

static int prepare_renewal(struct s3_source *source, const char *region, struct err *err)
{
    const struct fetch_options options = {
        .user_agent = "holdfast/" HOLDFAST_VERSION,
        .connections = 1,
        .connect_us = 2 * CLOCK_SECOND_US,
        .silence_us = 5 * CLOCK_SECOND_US,
    };
    if (s3_places_init(&source->places, region, &source->kind, err) < 0)
        return -1;
    return fetch_new(&options, &source->fetch, err);
}

int s3_source_new(const struct s3_source_options *options, struct s3_source **ret, struct err *err)
{
    struct s3_keys *keys = NULL;
    if (find_static_keys(options, &keys, err) < 0)
        return -1;
    struct s3_source *source = mem_zalloc(sizeof(*source));
    pthread_condattr_t attributes;
    require(pthread_condattr_init(&attributes) == 0);
    require(pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0);
    require(pthread_cond_init(&source->changed, &attributes) == 0);
    require(pthread_cond_init(&source->work, &attributes) == 0);
    require(pthread_condattr_destroy(&attributes) == 0);
    require(pthread_mutex_init(&source->mutex, NULL) == 0);
    source->patience_us = options->patience_us;
    source->give_up.us = INT64_MAX;
    source->kind = S3_SOURCE_STATIC;
    source->keys = keys;
    if (keys == NULL && prepare_renewal(source, options->region, err) < 0) {
        s3_source_free(source);
        return -1;
    }
    *ret = source;
    return 0;
}

void s3_source_give_up(struct s3_source *source, struct mono_us at)
{
    auto_lock held = lock_take(&source->mutex);
    source->give_up = at;
    (void)pthread_cond_broadcast(&source->changed);
    if (source->fetch != NULL)
        fetch_give_up(source->fetch, at);
}

void s3_source_free(struct s3_source *source)
{
    if (source == NULL)
        return;
    if (source->fetch != NULL)
        fetch_give_up(source->fetch, clock_mono());
    {
        auto_lock held = lock_take(&source->mutex);
        source->stopping = true;
        (void)pthread_cond_signal(&source->work);
    }
    if (source->has_thread)
        require(pthread_join(source->thread, NULL) == 0);
    drop(source->keys);
    s3_places_done(&source->places);
    fetch_free(source->fetch);
    require(pthread_cond_destroy(&source->changed) == 0);
    require(pthread_cond_destroy(&source->work) == 0);
    require(pthread_mutex_destroy(&source->mutex) == 0);
    free(source);
}
