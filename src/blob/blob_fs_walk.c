/* Walking the file-system store. It runs beside pushes and collection: whatever vanishes between
 * two looks at it was removed by somebody who may, and is passed over. */
#include "blob/blob_fs_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

struct folder {
    const struct blob_walk *walk;
    void *context;
    int fd;
    enum hash_algorithm algorithm; /* below blobs/<algorithm> */
    const char *name;
    char path[32]; /* relative to the root; only folders of our own are entered: their names are
                      short */
};

typedef int visit_entry(const struct folder *folder, const char *name, const struct stat *st,
                        struct err *err);

static void dir_close_auto(DIR **dir)
{
    if (*dir != NULL)
        (void)closedir(*dir);
}

/* Gives every entry of the folder `name` below `parent` to `visit`. */
static int walk_folder(const struct folder *parent, const char *name, visit_entry *visit,
                       struct err *err)
{
    struct folder folder = *parent;
    folder.name = name;
    int n = snprintf(folder.path, sizeof(folder.path), "%s%s%s", parent->path,
                     parent->path[0] != '\0' ? "/" : "", name);
    require(n > 0 && (size_t)n < sizeof(folder.path));
    auto_fd fd = openat(parent->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    __attribute__((cleanup(dir_close_auto))) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (dir == NULL)
        return err_sys(err, "could not open folder \"%s\"", folder.path);
    folder.fd = take_fd(&fd); /* dir owns it now */

    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            return err_sys(err, "could not read folder \"%s\"", folder.path);
        if (entry == NULL)
            return 0;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        struct stat st;
        if (fstatat(folder.fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            if (errno == ENOENT)
                continue;
            return err_sys(err, "could not stat \"%s/%s\"", folder.path, entry->d_name);
        }
        if (visit(&folder, entry->d_name, &st, err) < 0)
            return -1;
    }
}

static int stray(const struct folder *folder, const char *name, struct err *err)
{
    if (folder->walk->stray == NULL)
        return 0;
    char path[sizeof(folder->path) + NAME_MAX + 2];
    (void)snprintf(path, sizeof(path), "%s/%s", folder->path, name);
    return folder->walk->stray(folder->context, path, err);
}

static struct wall_us wall_from(const struct timespec *t)
{
    return (struct wall_us){t->tv_sec * CLOCK_SECOND_US + t->tv_nsec / 1000};
}

static int visit_upload(const struct folder *folder, const char *name, const struct stat *st,
                        struct err *err)
{
    struct str id = str_from(name);
    if (!S_ISREG(st->st_mode) || !blob_upload_id_valid(id))
        return stray(folder, name, err);
    if (folder->walk->upload == NULL)
        return 0;
    return folder->walk->upload(folder->context, id, STR(""), (uint64_t)st->st_size,
                                wall_from(&st->st_mtim), err);
}

static int visit_blob(const struct folder *folder, const char *name, const struct stat *st,
                      struct err *err)
{
    char text[OCI_DIGEST_TEXT_MAX + NAME_MAX];
    (void)snprintf(text, sizeof(text), "%s:%s", fs_algorithm_names[folder->algorithm], name);
    struct oci_digest digest;
    struct err ignored;
    if (!S_ISREG(st->st_mode) || strncmp(name, folder->name, FS_FANOUT_CHARS) != 0 ||
        oci_digest_parse(str_from(text), &digest, &ignored) < 0)
        return stray(folder, name, err);
    if (folder->walk->blob == NULL)
        return 0;
    /* Its last byte may be older than its name by the life of an upload; the name counts. */
    return folder->walk->blob(folder->context, &digest, STR(""), (uint64_t)st->st_size,
                              wall_from(&st->st_ctim), err);
}

static int visit_fanout(const struct folder *folder, const char *name, const struct stat *st,
                        struct err *err)
{
    if (!S_ISDIR(st->st_mode) || strlen(name) != FS_FANOUT_CHARS ||
        strspn(name, "0123456789abcdef") != FS_FANOUT_CHARS)
        return stray(folder, name, err);
    return walk_folder(folder, name, visit_blob, err);
}

static int visit_algorithm(const struct folder *folder, const char *name, const struct stat *st,
                           struct err *err)
{
    for (size_t i = 0; i < FS_ALGORITHMS; i++) {
        if (!S_ISDIR(st->st_mode) || strcmp(name, fs_algorithm_names[i]) != 0)
            continue;
        struct folder blobs = *folder;
        blobs.algorithm = (enum hash_algorithm)i;
        return walk_folder(&blobs, name, visit_fanout, err);
    }
    return stray(folder, name, err);
}

int fs_walk(struct blob_store *store, const struct blob_walk *walk, void *context, struct err *err)
{
    struct folder root = {.walk = walk, .context = context, .fd = fs_store_of(store)->root_fd};
    bool staged_only = walk->blob == NULL && walk->stray == NULL; /* blobs may be millions */
    if (!staged_only && walk_folder(&root, "blobs", visit_algorithm, err) < 0)
        return -1;
    return walk_folder(&root, "uploads", visit_upload, err);
}
