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

/* Blobs are found by their digest, whatever a row says about their location. */
static int open_blob(struct blob_store *store, const struct blob_ref *blob, int *ret_fd,
                     uint64_t *ret_size, struct err *err)
{
    const struct oci_digest *digest = &blob->digest;
    char name[FS_NAME_BYTES];
    fs_name(digest, name);
    const char *algorithm = fs_algorithm_names[digest->algorithm];
    auto_fd fd = openat(fs_store_of(store)->algorithm_fds[digest->algorithm], name,
                        O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return blob_unknown(blob, err);
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

static int open_sized_blob(struct blob_store *store, const struct blob_ref *blob, int *ret_fd,
                           struct err *err)
{
    auto_fd fd = -1;
    uint64_t size = 0;
    if (open_blob(store, blob, &fd, &size, err) < 0)
        return -1;
    if (size != blob->size)
        return blob_has_other_size(blob, err);
    *ret_fd = take_fd(&fd);
    return 0;
}

static int fs_blob_open(struct blob_store *store, const struct blob_ref *blob, uint64_t offset,
                        uint64_t n, const char *call_id, struct blob_content *ret, struct err *err)
{
    (void)offset; /* who gets a file finds his way in it */
    (void)n;
    (void)call_id;
    int fd;
    if (open_sized_blob(store, blob, &fd, err) < 0)
        return -1;
    *ret = (struct blob_content){.fd = fd};
    return 0;
}

static int fs_blob_redirect(struct blob_store *store, const struct blob_ref *blob,
                            struct arena *arena, struct str *ret_url, struct err *err)
{
    (void)store;
    (void)blob;
    (void)arena;
    (void)err;
    *ret_url = (struct str){0};
    return 0;
}

static int fs_blob_read(struct blob_store *store, const struct blob_ref *blob, blob_take *take,
                        void *context, struct err *err)
{
    auto_fd fd = -1;
    if (open_sized_blob(store, blob, &fd, err) < 0)
        return -1;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);

    auto_mem char *piece = mem_alloc(BLOB_PIECE_BYTES);
    for (uint64_t at = 0; at < blob->size;) {
        uint64_t rest = blob->size - at;
        size_t max = rest < BLOB_PIECE_BYTES ? (size_t)rest : BLOB_PIECE_BYTES;
        ssize_t n = read(fd, piece, max);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            char text[OCI_DIGEST_TEXT_MAX + 1];
            (void)oci_digest_format(&blob->digest, text);
            return err_sys(err, "could not read blob \"%s\"", text);
        }
        if (n == 0) /* cut short since it was opened */
            return blob_has_other_size(blob, err);
        if (take(context, (struct str){piece, (size_t)n}, err) < 0)
            return -1;
        at += (uint64_t)n;
    }
    return 0;
}

static int fs_blob_stat(struct blob_store *store, const struct blob_ref *blob, uint64_t *ret_size,
                        struct err *err)
{
    auto_fd fd = -1;
    return open_blob(store, blob, &fd, ret_size, err);
}

/* Syncs nothing: a blob that is back after a power cut is one that no row names, and is found and
 * removed like any other. */
static int fs_blob_delete(struct blob_store *store, const struct blob_ref *blobs, size_t n,
                          struct err *err)
{
    for (size_t i = 0; i < n; i++) {
        const struct oci_digest *digest = &blobs[i].digest;
        char name[FS_NAME_BYTES];
        fs_name(digest, name);
        if (unlinkat(fs_store_of(store)->algorithm_fds[digest->algorithm], name, 0) < 0 &&
            errno != ENOENT)
            return err_sys(err, "could not remove \"blobs/%s/%s\"",
                           fs_algorithm_names[digest->algorithm], name);
    }
    return 0;
}

static const struct blob_backend fs_backend = {
    .remote = false,
    .excludes = true,
    .store_close = fs_store_close,
    .store_space = fs_store_space,
    .upload_create = fs_upload_create,
    .upload_hold = fs_upload_hold,
    .upload_cut = fs_upload_cut,
    .upload_write = fs_upload_write,
    .upload_read = fs_upload_read,
    .upload_sync = fs_upload_sync,
    .upload_stage = fs_upload_stage,
    .upload_settle = fs_upload_settle,
    .upload_commit = fs_upload_commit,
    .upload_close = fs_upload_close,
    .upload_discard = fs_upload_discard,
    .upload_drop = fs_upload_drop,
    .blob_open = fs_blob_open,
    .blob_redirect = fs_blob_redirect,
    .blob_read = fs_blob_read,
    .blob_stat = fs_blob_stat,
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
