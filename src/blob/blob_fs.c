#include "blob/blob_fs_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

const char *const fs_algorithm_names[FS_ALGORITHMS] = {
    [HASH_SHA256] = "sha256",
    [HASH_SHA512] = "sha512",
};

void fs_name(const struct oci_digest *digest, char name[FS_NAME_BYTES])
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    struct str hex = oci_digest_format(digest, text);
    (void)str_cut(&hex, ':');
    (void)snprintf(name, FS_NAME_BYTES, STR_FMT "/" STR_FMT, STR_ARG(str_first(hex, 2)),
                   STR_ARG(hex));
}

/* ---- Opening and closing ---- */

static const char *advice(int number)
{
    switch (number) {
    case EACCES:
    case EPERM:
        return "give the server's user the right to read and write it";
    case EROFS:
        return "mount its file system for writing";
    case ENOENT:
        return "create the folder, or correct the configured path";
    case ENOTDIR:
        return "move away what stands in the folder's place";
    case ENOSPC:
    case EDQUOT:
        return "make room";
    default:
        return "look into the system's log";
    }
}

/* Unlike at run time, who reads this is the operator: it names the path and what to do. */
static int open_failed(struct err *err, const char *root, const char *folder)
{
    int number = errno;
    bool full = number == ENOSPC || number == EDQUOT;
    return err_set(err, full ? ERR_FULL : ERR_IO, "cannot use folder \"%s%s%s\": %s; %s", root,
                   folder[0] != '\0' ? "/" : "", folder, strerrordesc_np(number), advice(number));
}

static int open_folder(int root_fd, const char *root, const char *folder, int *ret_fd,
                       struct err *err)
{
    if (mkdirat(root_fd, folder, 0750) < 0 && errno != EEXIST)
        return open_failed(err, root, folder);
    auto_fd fd = openat(root_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || faccessat(root_fd, folder, R_OK | W_OK | X_OK, AT_EACCESS) < 0)
        return open_failed(err, root, folder);
    *ret_fd = take_fd(&fd);
    return 0;
}

/* A blob gets its name by a hard link to the staged file. */
static int check_same_file_system(const struct fs_store *store, const char *root, struct err *err)
{
    struct stat uploads;
    if (fstat(store->uploads_fd, &uploads) < 0)
        return open_failed(err, root, "uploads");
    for (size_t i = 0; i < FS_ALGORITHMS; i++) {
        struct stat blobs;
        if (fstat(store->algorithm_fds[i], &blobs) < 0)
            return open_failed(err, root, "blobs");
        if (blobs.st_dev != uploads.st_dev)
            return err_set(err, ERR_IO,
                           "folders \"%s/uploads\" and \"%s/blobs/%s\" are on different file "
                           "systems; put both on one",
                           root, root, fs_algorithm_names[i]);
    }
    return 0;
}

static int open_folders(struct fs_store *store, const char *root, struct err *err)
{
    store->root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (store->root_fd < 0)
        return open_failed(err, root, "");
    if (open_folder(store->root_fd, root, "uploads", &store->uploads_fd, err) < 0 ||
        open_folder(store->root_fd, root, "blobs", &store->blobs_fd, err) < 0)
        return -1;
    for (size_t i = 0; i < FS_ALGORITHMS; i++) {
        char folder[32];
        (void)snprintf(folder, sizeof(folder), "blobs/%s", fs_algorithm_names[i]);
        if (open_folder(store->root_fd, root, folder, &store->algorithm_fds[i], err) < 0)
            return -1;
    }
    /* Always, for who made them may have stopped before he came to this. */
    if (fsync(store->root_fd) < 0)
        return open_failed(err, root, "");
    if (fsync(store->blobs_fd) < 0)
        return open_failed(err, root, "blobs");
    return check_same_file_system(store, root, err);
}

static void fs_store_close(struct blob_store *base)
{
    struct fs_store *store = fs_store_of(base);
    const int fds[] = {store->root_fd, store->uploads_fd, store->blobs_fd,
                       store->algorithm_fds[HASH_SHA256], store->algorithm_fds[HASH_SHA512]};
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
        fd_close_auto(&fds[i]);
    free(store);
}

/* ---- Space ---- */

static int fs_store_space(struct blob_store *store, uint64_t *ret_free, uint64_t *ret_total,
                          struct err *err)
{
    struct statvfs space;
    if (fstatvfs(fs_store_of(store)->blobs_fd, &space) < 0)
        return err_sys(err, "could not ask for the free space of the blob store");
    *ret_free = (uint64_t)space.f_bavail * space.f_frsize; /* what is not reserved for root */
    *ret_total = (uint64_t)space.f_blocks * space.f_frsize;
    return 0;
}

/* ---- Committed blobs ---- */

static int fs_blob_open(struct blob_store *store, const struct oci_digest *digest, int *ret_fd,
                        uint64_t *ret_size, struct err *err)
{
    char name[FS_NAME_BYTES];
    fs_name(digest, name);
    const char *algorithm = fs_algorithm_names[digest->algorithm];
    auto_fd fd = openat(fs_store_of(store)->algorithm_fds[digest->algorithm], name,
                        O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return err_code(err, ERR_NOT_FOUND, OCI_BLOB_UNKNOWN, "blob \"%s:%s\" is not stored",
                        algorithm, name + FS_FANOUT_CHARS + 1);
    if (fd < 0)
        return err_sys(err, "could not open \"blobs/%s/%s\"", algorithm, name);

    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "could not stat \"blobs/%s/%s\"", algorithm, name);
    if (!S_ISREG(st.st_mode)) {
        (void)err_set(err, ERR_IO, "the registry's storage failed");
        return err_why(err, "\"blobs/%s/%s\" is not a regular file", algorithm, name);
    }
    *ret_fd = take_fd(&fd);
    *ret_size = (uint64_t)st.st_size; /* never negative */
    return 0;
}

/* Syncs nothing: a blob that is back after a power cut is one that no row names, and is found and
 * removed like any other. */
static int fs_blob_delete(struct blob_store *store, const struct oci_digest *digest,
                          struct err *err)
{
    char name[FS_NAME_BYTES];
    fs_name(digest, name);
    if (unlinkat(fs_store_of(store)->algorithm_fds[digest->algorithm], name, 0) < 0 &&
        errno != ENOENT)
        return err_sys(err, "could not remove \"blobs/%s/%s\"",
                       fs_algorithm_names[digest->algorithm], name);
    return 0;
}

static const struct blob_backend fs_backend = {
    .store_close = fs_store_close,
    .store_space = fs_store_space,
    .upload_create = fs_upload_create,
    .upload_hold = fs_upload_hold,
    .upload_cut = fs_upload_cut,
    .upload_write = fs_upload_write,
    .upload_read = fs_upload_read,
    .upload_sync = fs_upload_sync,
    .upload_commit = fs_upload_commit,
    .upload_close = fs_upload_close,
    .upload_discard = fs_upload_discard,
    .blob_open = fs_blob_open,
    .blob_delete = fs_blob_delete,
    .walk = fs_walk,
};

int blob_store_open_fs(const char *root, struct blob_store **ret, struct err *err)
{
    struct fs_store *store = mem_zalloc(sizeof(*store));
    store->base.backend = &fs_backend;
    store->root_fd = store->uploads_fd = store->blobs_fd = -1;
    store->algorithm_fds[HASH_SHA256] = store->algorithm_fds[HASH_SHA512] = -1;
    if (open_folders(store, root, err) < 0) {
        fs_store_close(&store->base);
        return -1;
    }
    *ret = &store->base;
    return 0;
}
