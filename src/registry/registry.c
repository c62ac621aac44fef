#include "registry/registry_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

/* Takes the lock that keeps a second process out. Both are owned; closing ret_fd releases the lock.
 */
static int lock_folder(const char *data, int *ret_folder, int *ret_fd, struct err *err)
{
    if (mkdir(data, 0750) < 0 && errno != EEXIST) {
        int number = errno;
        return err_set(err, ERR_IO, "could not make the data folder \"%s\": %s", data,
                       strerrordesc_np(number));
    }
    auto_fd folder = open(data, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto_fd fd = folder < 0 ? -1 : openat(folder, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) {
        int number = errno;
        return err_set(err, ERR_IO,
                       "could not use the data folder \"%s\": %s; it must be a folder that this "
                       "user may write",
                       data, strerrordesc_np(number));
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_set(err, ERR_BUSY,
                       "the data folder \"%s\" is in use by another holdfast process; stop it "
                       "first, or choose another folder with --data",
                       data);
    *ret_folder = take_fd(&folder);
    *ret_fd = take_fd(&fd);
    return 0;
}

static int open_database(struct registry *registry, const struct registry_options *options,
                         struct err *err)
{
    auto_arena arena = {0};
    struct db_options database = {
        .path = options->metadata == NULL ? str_printf(&arena, "%s/holdfast.db", options->data).p
                                          : NULL,
        .url = options->metadata,
        .readers = options->readers,
        .busy_us = options->busy_us,
        .observe = options->observe,
        .observe_context = options->observe_context,
    };
    if (db_open(&database, &registry->db, err) < 0)
        return -1;
    if (options->use == REGISTRY_OBSERVE)
        return 0;
    if (db_guard(registry->db, options->use == REGISTRY_ALONE, err) < 0)
        return -1;
    return meta_migrate(registry->db, err);
}

/* Who serves is no copy of another registry any more. And where there is but one node, whatever a
 * former one held when it died is free. */
static int take_over(struct call *call, void *context)
{
    const struct registry *registry = context;
    struct str id;
    struct str origin;
    if (registry->alone && meta_upload_release_all(call) < 0)
        return -1;
    if (meta_identity(call, &id, &origin) < 0)
        return -1;
    return origin.n > 0 ? meta_identity_set(call, id, STR("")) : 0;
}

static int check_in(struct registry *registry, enum registry_use use, struct err *err)
{
    auto_call call = {0};
    if (use == REGISTRY_OBSERVE)
        return meta_check(registry->db, err);
    if (use != REGISTRY_SERVE || db_transact(&call, registry->db, take_over, registry) == 0)
        return 0;
    *err = call.err;
    return -1;
}

/* Opening a folder makes what it lacks, and who observes changes nothing. */
static int find_folder(const struct registry_options *options, struct err *err)
{
    auto_arena arena = {0};
    struct str wanted = options->metadata == NULL
                            ? str_printf(&arena, "%s/holdfast.db", options->data)
                            : str_printf(&arena, "%s/blobs", options->data);
    if (access(wanted.p, F_OK) == 0)
        return 0;
    return err_set(err, ERR_NOT_FOUND, "there is no registry in \"%s\"; see --data", options->data);
}

static int open_folder(struct registry *registry, const struct registry_options *options,
                       struct err *err)
{
    if (options->metadata != NULL && options->blobs != NULL)
        return 0;
    return options->use == REGISTRY_OBSERVE
               ? find_folder(options, err)
               : lock_folder(options->data, &registry->folder_fd, &registry->lock_fd, err);
}

static int open_parts(struct registry *registry, const struct registry_options *options,
                      struct err *err)
{
    if (open_folder(registry, options, err) < 0)
        return -1;
    registry->alone = options->use == REGISTRY_ALONE || registry->lock_fd >= 0;
    if (registry->blobs == NULL && blob_store_open_fs(options->data, &registry->blobs, err) < 0)
        return -1;
    if (open_database(registry, options, err) < 0 || check_in(registry, options->use, err) < 0 ||
        db_listen(registry->db, known_told, registry, err) < 0)
        return -1;
    return registry_is_remote(registry) ? closer_start(&registry->closer, err) : 0;
}

int registry_open(const struct registry_options *options, struct registry **ret, struct err *err)
{
    struct registry *registry = mem_zalloc(sizeof(*registry));
    registry->folder_fd = registry->lock_fd = -1;
    require(pthread_mutex_init(&registry->store.mutex, NULL) == 0);
    registry->blobs = options->blobs;
    registry->known = cache_new(options->cache_bytes);
    registry->expire_us = options->expire_us;
    registry->lease_us = options->lease_us;
    if (open_parts(registry, options, err) < 0) {
        registry_close(registry);
        return -1;
    }
    *ret = registry;
    return 0;
}

void registry_give_up(struct registry *registry, int64_t in_us)
{
    if (registry == NULL)
        return;
    const struct mono_us at = {clock_mono().us + in_us};
    if (registry->give_up.us != 0 && registry->give_up.us < at.us)
        return;
    registry->give_up = at;
    blob_store_give_up(registry->blobs, at);
    closer_give_up(registry->closer, at);
}

void registry_close(struct registry *registry)
{
    if (registry == NULL)
        return;
    closer_stop(registry->closer);
    db_close(registry->db);
    blob_store_close(registry->blobs);
    cache_free(registry->known);
    fd_close_auto(&registry->folder_fd);
    fd_close_auto(&registry->lock_fd);
    (void)pthread_mutex_destroy(&registry->store.mutex);
    free(registry);
}

bool registry_is_remote(const struct registry *registry)
{
    return db_is_remote(registry->db) || blob_store_is_remote(registry->blobs);
}

struct db *registry_db(struct registry *registry)
{
    return registry->db;
}

struct blob_store *registry_blobs(struct registry *registry)
{
    return registry->blobs;
}

int registry_begin_read(struct call *call, struct registry *registry)
{
    return db_read(registry->db, &call->db, &call->err);
}

void registry_end(struct call *call)
{
    db_end(TAKE(call->db));
}

int registry_lock(struct call *call, int64_t repository, bool shared)
{
    return db_lock(call->db, repository, shared, &call->err);
}

int registry_not_found(struct call *call, const struct oci_name *name, enum meta_found found,
                       const char *code, struct str what)
{
    if (found == META_NO_REPOSITORY)
        return err_code(&call->err, ERR_NOT_FOUND, OCI_NAME_UNKNOWN,
                        "repository \"" STR_FMT "\" is not known", STR_ARG(name->text));
    return err_code(&call->err, ERR_NOT_FOUND, code,
                    "\"" STR_FMT "\" is not known in repository \"" STR_FMT "\"", STR_ARG(what),
                    STR_ARG(str_first(name->text, 100)));
}

/* Whether the database's folder can be written. Where the blobs are in it, too, they are the proof.
 */
static int folder_ready(const struct registry *registry, struct err *err)
{
    static const char some[4096] = {0};
    auto_fd fd = openat(registry->folder_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, some, sizeof(some)) != (ssize_t)sizeof(some) || fdatasync(fd) < 0)
        return err_sys(err, "could not write a file in the data folder");
    return 0;
}

/* An object store is paid for what it is asked, and waited for while it is away. So one asks at a
 * time; what was found a moment ago is good enough for the others, and when the one who asks has
 * waited for long they need not, to know. Writing costs ten times what reading does: it is tried at
 * the start, after each failure, and otherwise seldom. */
#define STORE_SEEN_US (5 * CLOCK_SECOND_US)
#define STORE_ASKED_US (2 * CLOCK_SECOND_US)
#define STORE_TRIED_US (300 * CLOCK_SECOND_US)

/* False: *ret_good is known. *ret_write: that it can be written is to be tried. */
static bool must_ask_store(struct registry *registry, bool *ret_good, bool *ret_write)
{
    auto_lock held = lock_take(&registry->store.mutex);
    int64_t enough_us = registry->store.asking ? STORE_ASKED_US : STORE_SEEN_US;
    *ret_good = registry->store.good && clock_since_us(registry->store.asked) < enough_us;
    if (registry->store.asking || *ret_good)
        return false;
    registry->store.asking = true;
    registry->store.asked = clock_mono();
    *ret_write = !registry->store.good || clock_since_us(registry->store.tried) >= STORE_TRIED_US;
    return true;
}

static void note_store(struct registry *registry, bool good, bool written)
{
    auto_lock held = lock_take(&registry->store.mutex);
    registry->store.asking = false;
    registry->store.good = good;
    if (written)
        registry->store.tried = clock_mono();
}

/* One that answers, and refuses what was read, may be one that does not say whether something is
 * there to who may not list: then writing tells. */
static bool ask_store(struct call *call, struct registry *registry, bool *write)
{
    if (!*write && blob_store_look(registry->blobs, &call->err) == 0)
        return true;
    if (!*write && call->err.kind == ERR_BUSY)
        return false;
    *write = true;
    return blob_store_ping(registry->blobs, &call->err) == 0;
}

int registry_ready(struct call *call, struct registry *registry)
{
    if (db_ping(registry->db, &call->err) < 0)
        return -1;
    if (!blob_store_is_remote(registry->blobs))
        return blob_store_ping(registry->blobs, &call->err);
    if (registry->folder_fd >= 0 && folder_ready(registry, &call->err) < 0)
        return -1;
    bool good;
    bool write;
    if (!must_ask_store(registry, &good, &write))
        return good ? 0 : err_set(&call->err, ERR_BUSY, "the object store does not answer");
    good = ask_store(call, registry, &write);
    note_store(registry, good, write);
    return good ? 0 : -1;
}

static int fold(struct call *call, void *context)
{
    (void)context;
    return meta_totals_fold(call);
}

int registry_totals_fold(struct call *call, struct registry *registry)
{
    return db_transact(call, registry->db, fold, NULL);
}

int registry_totals(struct call *call, struct registry *registry, struct registry_totals *ret)
{
    auto_read held = call;
    struct meta_totals totals;
    struct registry_totals all = {0};
    if (registry_begin_read(call, registry) < 0 || meta_totals(call, &totals) < 0 ||
        blob_store_space(registry->blobs, &all.disk_free_bytes, &all.disk_total_bytes, &call->err) <
            0)
        return -1;
    all.repositories = totals.repositories;
    all.blobs = totals.blobs;
    all.blob_bytes = totals.blob_bytes;
    all.manifests = totals.manifests;
    all.tags = totals.tags;
    all.uploads = totals.uploads;
    struct cache_counts known = cache_count(registry->known);
    all.cache.hits = known.hits;
    all.cache.misses = known.misses;
    all.cache.entries = known.entries;
    all.cache.bytes = known.bytes;
    *ret = all;
    return 0;
}
