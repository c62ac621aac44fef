#include "registry/registry_int.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

/* Takes the lock that keeps a second process out. ret_fd: owned; closing it releases the lock. */
static int lock_folder(const char *data, int *ret_fd, struct err *err)
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
    *ret_fd = take_fd(&fd);
    return 0;
}

static int open_parts(struct registry *registry, const struct registry_options *options,
                      struct err *err)
{
    if (lock_folder(options->data, &registry->lock_fd, err) < 0 ||
        blob_store_open_fs(options->data, &registry->blobs, err) < 0)
        return -1;
    auto_arena arena = {0};
    struct db_options database = {
        .path = str_printf(&arena, "%s/holdfast.db", options->data).p,
        .readers = options->readers,
        .busy_us = options->busy_us,
        .observe = options->observe,
        .observe_context = options->observe_context,
    };
    if (db_open(&database, &registry->db, err) < 0)
        return -1;
    return meta_migrate(registry->db, err);
}

int registry_open(const struct registry_options *options, struct registry **ret, struct err *err)
{
    struct registry *registry = mem_zalloc(sizeof(*registry));
    registry->lock_fd = -1;
    registry->expire_us = options->expire_us;
    if (open_parts(registry, options, err) < 0) {
        registry_close(registry);
        return -1;
    }
    *ret = registry;
    return 0;
}

void registry_close(struct registry *registry)
{
    if (registry == NULL)
        return;
    db_close(registry->db);
    blob_store_close(registry->blobs);
    if (registry->lock_fd >= 0)
        (void)close(registry->lock_fd);
    free(registry);
}

int registry_begin_read(struct call *call, struct registry *registry)
{
    return db_read(registry->db, &call->db, &call->err);
}

int registry_begin_write(struct call *call, struct registry *registry)
{
    return db_write(registry->db, &call->db, &call->err);
}

int registry_commit(struct call *call)
{
    return db_commit(TAKE(call->db), &call->err);
}

void registry_end(struct call *call)
{
    db_end(TAKE(call->db));
}

int registry_not_found(struct call *call, const struct oci_name *name, const char *code,
                       struct str what)
{
    int64_t id;
    bool found;
    if (meta_repository_find(call, name, &id, &found) < 0)
        return -1;
    if (!found)
        return err_code(&call->err, ERR_NOT_FOUND, OCI_NAME_UNKNOWN,
                        "repository \"" STR_FMT "\" is not known", STR_ARG(name->text));
    return err_code(&call->err, ERR_NOT_FOUND, code,
                    "\"" STR_FMT "\" is not known in repository \"" STR_FMT "\"", STR_ARG(what),
                    STR_ARG(str_first(name->text, 100)));
}

int registry_ready(struct call *call, struct registry *registry)
{
    if (db_ping(registry->db, &call->err) < 0)
        return -1;
    return blob_store_ping(registry->blobs, &call->err);
}

int registry_totals(struct call *call, struct registry *registry, struct registry_totals *ret)
{
    auto_tx tx = call;
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
    *ret = all;
    return 0;
}
