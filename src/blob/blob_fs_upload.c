/* Staging and committing in the file-system store.
 *
 * The order that makes a commit safe: the staged file's bytes are on disk before it gets its name
 * below blobs/, and the name is on disk before the commit is reported. A stop at any point leaves
 * either nothing under the digest's name or the whole blob. From naming until the upload is
 * discarded one file has two names, and the second is a blob's: whoever takes the upload up again
 * gets a file of its own (move_to_own_file). */
#include "blob/blob_fs_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>

/* The kernel is told to start writing after so many bytes; otherwise it collects dirty pages for
 * seconds and the sync at the end waits for all of them. */
#define WRITEBACK_BYTES (UINT64_C(4) * 1024 * 1024)

struct fs_upload {
    struct blob_upload base;
    int fd;                   /* holds the lock; read and write */
    uint64_t writeback_begun; /* up to this byte */
    bool name_durable;        /* uploads/<id> itself survives a power cut */
};

static struct fs_upload *fs_upload_of(struct blob_upload *upload)
{
    return (struct fs_upload *)upload; /* its first member */
}

/* ---- Beginning and ending ---- */

/* fd: taken over. */
static struct fs_upload *upload_new(struct blob_store *store, const char *id, int fd)
{
    struct fs_upload *upload = mem_zalloc(sizeof(*upload));
    upload->base.store = store;
    memcpy(upload->base.id, id, sizeof(upload->base.id));
    upload->fd = fd;
    return upload;
}

static int upload_unknown(const char *id, struct err *err)
{
    return err_code(err, ERR_NOT_FOUND, OCI_BLOB_UPLOAD_UNKNOWN,
                    "upload \"%s\" does not exist, or not any more", id);
}

/* Locks the staged file. The lock belongs to this opening of the file: it excludes other threads as
 * well as other processes, and no child inherits it. */
static int lock_staged(int fd, const char *id, struct err *err)
{
    if (flock(fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    return errno == EWOULDBLOCK
               ? err_set(err, ERR_BUSY, "upload \"%s\" is being written to by somebody", id)
               : err_sys(err, "could not lock \"uploads/%s\"", id);
}

int fs_upload_create(struct blob_store *store, const char *id, struct blob_upload **ret,
                     struct err *err)
{
    auto_fd fd = openat(fs_store_of(store)->uploads_fd, id,
                        O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (fd < 0)
        return err_sys(err, "could not make \"uploads/%s\"", id);
    if (lock_staged(fd, id, err) < 0)
        return -1;
    *ret = &upload_new(store, id, take_fd(&fd))->base;
    return 0;
}

/* Called with the lock held. Between our open and our lock somebody may have discarded the upload,
 * or put another file in its place. */
static int check_still_staged(struct fs_store *store, const char *id, int fd, struct err *err)
{
    struct stat held;
    struct stat named;
    if (fstat(fd, &held) < 0)
        return err_sys(err, "could not stat \"uploads/%s\"", id);
    if (fstatat(store->uploads_fd, id, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? upload_unknown(id, err)
                               : err_sys(err, "could not stat \"uploads/%s\"", id);
    return named.st_ino == held.st_ino && named.st_dev == held.st_dev ? 0 : upload_unknown(id, err);
}

static int copy_bytes(int from, int to, uint64_t n, const char *id, struct err *err)
{
    while (n > 0) {
        ssize_t copied = copy_file_range(from, NULL, to, NULL, n, 0);
        if (copied < 0 && errno == EINTR)
            continue;
        if (copied < 0)
            return err_sys(err, "could not copy \"uploads/%s\"", id);
        if (copied == 0)
            return err_set(err, ERR_CORRUPT, "upload \"%s\" has lost bytes", id);
        n -= (uint64_t)copied;
    }
    return 0;
}

/* A crash came between the naming of the blob and the row that would have ended the upload: what
 * was acknowledged moves to a file of its own, whose bytes and name are durable before it takes the
 * upload's name. *fd is replaced. */
static int move_to_own_file(struct fs_store *store, const char *id, uint64_t offset, int *fd,
                            struct err *err)
{
    char fresh[BLOB_UPLOAD_ID_BYTES + 1]; /* what a crash leaves here is an upload without a row */
    blob_upload_id_make(fresh);
    auto_fd copy =
        openat(store->uploads_fd, fresh, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0640);
    if (copy < 0)
        return err_sys(err, "could not make \"uploads/%s\"", fresh);
    if (lock_staged(copy, id, err) < 0 || copy_bytes(*fd, copy, offset, id, err) < 0)
        return -1;
    if (fdatasync(copy) < 0 || renameat(store->uploads_fd, fresh, store->uploads_fd, id) < 0 ||
        fsync(store->uploads_fd) < 0)
        return err_sys(err, "could not replace \"uploads/%s\"", id);
    fd_close_auto(fd);
    *fd = take_fd(&copy);
    return 0;
}

/* A blob's file is read-only, also where it still has an upload's name. */
static int open_staged(struct fs_store *store, const char *id)
{
    const int flags = O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
    int fd = openat(store->uploads_fd, id, O_RDWR | flags);
    return fd < 0 && errno == EACCES ? openat(store->uploads_fd, id, O_RDONLY | flags) : fd;
}

int fs_upload_hold(struct blob_store *base, const char *id, struct blob_upload **ret,
                   struct err *err)
{
    struct fs_store *store = fs_store_of(base);
    auto_fd fd = open_staged(store, id);
    if (fd < 0)
        return errno == ENOENT ? upload_unknown(id, err)
                               : err_sys(err, "could not open \"uploads/%s\"", id);
    if (lock_staged(fd, id, err) < 0 || check_still_staged(store, id, fd, err) < 0)
        return -1;
    *ret = &upload_new(base, id, take_fd(&fd))->base;
    return 0;
}

/* The id says where the bytes are: there is no more to know, nor to settle. */
struct str fs_upload_stage(const struct blob_upload *upload, struct arena *arena)
{
    (void)upload;
    (void)arena;
    return STR("");
}

void fs_upload_settle(struct blob_upload *upload)
{
    (void)upload;
}

int fs_upload_cut(struct blob_upload *base, uint64_t offset, struct str stage, struct err *err)
{
    (void)stage;
    struct fs_upload *upload = fs_upload_of(base);
    struct stat st;
    if (fstat(upload->fd, &st) < 0)
        return err_sys(err, "could not stat \"uploads/%s\"", base->id);
    uint64_t size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
    if (size < offset)
        return err_set(err, ERR_CORRUPT, "upload \"%s\" has lost bytes: it holds %llu of %llu",
                       base->id, (unsigned long long)size, (unsigned long long)offset);
    if (st.st_nlink > 1) {
        if (move_to_own_file(fs_store_of(base->store), base->id, offset, &upload->fd, err) < 0)
            return -1;
    } else if (size > offset && ftruncate(upload->fd, (off_t)offset) < 0) {
        return err_sys(err, "could not cut \"uploads/%s\" to %llu bytes", base->id,
                       (unsigned long long)offset);
    }
    upload->writeback_begun = offset;
    upload->name_durable = offset > 0; /* the sync before that acknowledgement saw to it */
    return 0;
}

void fs_upload_close(struct blob_upload *upload)
{
    fd_close_auto(&fs_upload_of(upload)->fd);
    free(upload);
}

/* The blob, when there is one, keeps its bytes by a name of its own. */
int fs_upload_discard(struct blob_store *store, const char *id, struct str stage, struct str kept,
                      struct err *err)
{
    (void)stage;
    (void)kept;
    if (unlinkat(fs_store_of(store)->uploads_fd, id, 0) < 0 && errno != ENOENT)
        return err_sys(err, "could not remove \"uploads/%s\"", id);
    return 0;
}

int fs_upload_drop(struct blob_upload *upload, struct str kept, struct err *err)
{
    return fs_upload_discard(upload->store, upload->id, STR(""), kept, err);
}

/* ---- Bytes ---- */

int fs_upload_write(struct blob_upload *base, const void *p, size_t n, struct err *err)
{
    struct fs_upload *upload = fs_upload_of(base);
    const char *from = p;
    uint64_t at = base->offset;
    while (n > 0) {
        ssize_t written = pwrite(upload->fd, from, n, (off_t)at);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            (void)err_sys(err, "could not write \"uploads/%s\" at byte %llu", base->id,
                          (unsigned long long)at);
            /* Half a piece is of no use, and on a full disk its space is. */
            if (ftruncate(upload->fd, (off_t)base->offset) < 0)
                (void)err_why(err, "nor cut it back: %s", strerrordesc_np(errno));
            return -1;
        }
        from += written;
        n -= (size_t)written;
        at += (uint64_t)written;
    }

    uint64_t dirty = at - upload->writeback_begun;
    if (dirty >= WRITEBACK_BYTES) {
        /* Only a start, and only a wish: without its waiting flags this neither reports a failed
         * write nor makes the kernel believe that it was reported. The sync will. */
        (void)sync_file_range(upload->fd, (off_t)upload->writeback_begun, (off_t)dirty,
                              SYNC_FILE_RANGE_WRITE);
        upload->writeback_begun = at;
    }
    return 0;
}

int fs_upload_read(struct blob_upload *upload, bool whole, blob_take *take, void *context,
                   struct err *err)
{
    (void)whole;
    auto_mem char *piece = mem_alloc(BLOB_PIECE_BYTES);
    for (uint64_t at = 0; at < upload->offset;) {
        uint64_t rest = upload->offset - at;
        size_t n = rest < BLOB_PIECE_BYTES ? (size_t)rest : BLOB_PIECE_BYTES;
        ssize_t got = pread(fs_upload_of(upload)->fd, piece, n, (off_t)at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(err, "could not read \"uploads/%s\" at byte %llu", upload->id,
                           (unsigned long long)at);
        if (got == 0)
            return err_set(err, ERR_CORRUPT, "upload \"%s\" has lost bytes: it ends at byte %llu",
                           upload->id, (unsigned long long)at);
        if (take(context, (struct str){piece, (size_t)got}, err) < 0)
            return -1;
        at += (uint64_t)got;
    }
    return 0;
}

int fs_upload_sync(struct blob_upload *base, struct err *err)
{
    struct fs_upload *upload = fs_upload_of(base);
    if (fdatasync(upload->fd) < 0)
        return err_sys(err, "could not sync \"uploads/%s\"", base->id);
    if (!upload->name_durable && fsync(fs_store_of(base->store)->uploads_fd) < 0)
        return err_sys(err, "could not sync folder \"uploads\"");
    upload->name_durable = true;
    return 0;
}

/* ---- Committing ---- */

/* The bytes on disk, and exactly those that were hashed. */
static int seal(struct fs_upload *upload, struct err *err)
{
    struct stat st;
    if (fstat(upload->fd, &st) < 0)
        return err_sys(err, "could not stat \"uploads/%s\"", upload->base.id);
    if (st.st_nlink == 0)
        return upload_unknown(upload->base.id, err); /* discarded while it was written */
    if ((uint64_t)st.st_size != upload->base.offset)
        return err_set(err, ERR_CORRUPT, "upload \"%s\" was changed: it holds %llu bytes, not %llu",
                       upload->base.id, (unsigned long long)st.st_size,
                       (unsigned long long)upload->base.offset);
    if (fdatasync(upload->fd) < 0)
        return err_sys(err, "could not sync \"uploads/%s\"", upload->base.id);
    return 0;
}

/* Makes the blob's folder and its entry in the algorithm's folder durable. Several threads may do
 * so at once; each has synced before it relies on it. That the folder exists says nothing: who made
 * it may not have come to the sync. */
static int make_fanout(struct fs_store *store, const struct oci_digest *digest, const char *name,
                       struct err *err)
{
    atomic_bool *made = &store->fanout_made[digest->algorithm][digest->bytes[0]];
    if (atomic_load(made))
        return 0;
    char folder[FS_FANOUT_CHARS + 1] = {name[0], name[1], '\0'};
    int parent_fd = store->algorithm_fds[digest->algorithm];
    if ((mkdirat(parent_fd, folder, 0750) < 0 && errno != EEXIST) || fsync(parent_fd) < 0)
        return err_sys(err, "could not make folder \"blobs/%s/%s\"",
                       fs_algorithm_names[digest->algorithm], folder);
    atomic_store(made, true);
    crash_point("blob.folder_made");
    return 0;
}

/* A blob of this name exists. It has the same content, unless something damaged it (a copy that was
 * cut short, a disk that lied about a sync); the length shows the common cases, and then the good
 * bytes take the place of the bad ones. */
static int keep_or_replace(struct fs_upload *upload, int parent_fd, const char *name,
                           struct err *err)
{
    struct stat st;
    if (fstatat(parent_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        (uint64_t)st.st_size == upload->base.offset)
        return 0;
    struct fs_store *store = fs_store_of(upload->base.store);
    if (renameat(store->uploads_fd, upload->base.id, parent_fd, name) < 0)
        return err_sys(err, "could not replace damaged blob \"%s\"", name);
    return 0;
}

static int give_name(struct fs_upload *upload, const struct oci_digest *digest, const char *name,
                     struct err *err)
{
    struct fs_store *store = fs_store_of(upload->base.store);
    int parent_fd = store->algorithm_fds[digest->algorithm];
    for (bool again = false;; again = true) {
        if (make_fanout(store, digest, name, err) < 0)
            return -1;
        if (linkat(store->uploads_fd, upload->base.id, parent_fd, name, 0) == 0)
            return 0;
        if (errno == EEXIST)
            return keep_or_replace(upload, parent_fd, name, err);
        if (errno != ENOENT || again)
            return err_sys(err, "could not name \"uploads/%s\" \"blobs/%s/%s\"", upload->base.id,
                           fs_algorithm_names[digest->algorithm], name);
        /* Somebody tidied empty folders away, or discarded the upload; then the second try says
         * the same. */
        atomic_store(&store->fanout_made[digest->algorithm][digest->bytes[0]], false);
    }
}

/* Also for a name that was there before: who gave it may not have come to this yet. */
static int sync_fanout(struct fs_store *store, const struct oci_digest *digest, const char *name,
                       struct err *err)
{
    char folder[FS_FANOUT_CHARS + 1] = {name[0], name[1], '\0'};
    auto_fd fd = openat(store->algorithm_fds[digest->algorithm], folder,
                        O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_sys(err, "could not sync folder \"blobs/%s/%s\"",
                       fs_algorithm_names[digest->algorithm], folder);
    return 0;
}

int fs_upload_commit(struct blob_upload *base, const struct oci_digest *digest, struct arena *arena,
                     struct str *ret_location, struct err *err)
{
    (void)arena;
    struct fs_upload *upload = fs_upload_of(base);
    struct fs_store *store = fs_store_of(base->store);
    char name[FS_NAME_BYTES];
    fs_name(digest, name);

    if (seal(upload, err) < 0)
        return -1;
    crash_point("blob.synced");
    if (give_name(upload, digest, name, err) < 0)
        return -1;
    crash_point("blob.named");
    if (sync_fanout(store, digest, name, err) < 0)
        return -1;
    crash_point("blob.durable");
    (void)fchmod(upload->fd, 0440); /* against slips; the blob is safe without it */
    crash_point("blob.committed");
    *ret_location = STR("");
    return 0;
}
