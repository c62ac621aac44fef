#include "importer/folder_int.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define PIECE_BYTES ((size_t)256 * 1024)

static int open_failed(const char *path, int number, struct err *err)
{
    if (number == ENOENT || number == ENAMETOOLONG)
        return err_set(err, ERR_NOT_FOUND, "there is no \"%s\" in the source", path);
    if (number == ELOOP || number == ENOTDIR)
        return err_set(err, ERR_INVALID,
                       "\"%s\" or a folder above it is a symbolic link or no folder; links are not "
                       "followed",
                       path);
    return err_set(err, ERR_IO, "could not open \"%s\": %s", path, strerrordesc_np(number));
}

int folder_open_root(const char *path, int *ret_fd, struct err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, ERR_NOT_FOUND, "there is no folder \"%s\"", path);
    if (fd < 0)
        return open_failed(path, errno, err);
    *ret_fd = fd;
    return 0;
}

/* Component by component, so that none of them is a link that leads elsewhere. */
static int open_below(int root, const char *path, int flags, int *ret_fd, struct err *err)
{
    auto_fd at = -1;
    struct str rest = str_from(path);
    while (rest.n > 0) {
        struct str part = str_cut(&rest, '/');
        char name[NAME_MAX + 1];
        if (part.n > NAME_MAX)
            return open_failed(path, ENAMETOOLONG, err);
        memcpy(name, part.p, part.n);
        name[part.n] = '\0';
        int how = rest.n > 0 ? O_RDONLY | O_DIRECTORY : flags;
        int next = openat(at < 0 ? root : at, name, how | O_NOFOLLOW | O_CLOEXEC);
        if (next < 0)
            return open_failed(path, errno, err);
        if (at >= 0)
            (void)close(at);
        at = next;
    }
    *ret_fd = take_fd(&at);
    return 0;
}

int folder_open_folder(int root, const char *path, int *ret_fd, struct err *err)
{
    return open_below(root, path, O_RDONLY | O_DIRECTORY, ret_fd, err);
}

int folder_open_file(int root, const char *path, uint64_t *ret_size, int *ret_fd, struct err *err)
{
    auto_fd fd = -1;
    struct stat st;
    /* Without waiting: a FIFO would wait for a writer. */
    if (open_below(root, path, O_RDONLY | O_NONBLOCK, &fd, err) < 0)
        return -1;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "could not look at \"%s\"", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID, "\"%s\" is not a regular file", path);
    *ret_size = (uint64_t)st.st_size; /* never negative for a regular file */
    *ret_fd = take_fd(&fd);
    return 0;
}

/* Up to `max` bytes from where the file stands; *ret_n is smaller only at its end. */
static int read_full(int fd, const char *path, char *p, size_t max, size_t *ret_n, struct err *err)
{
    size_t n = 0;
    while (n < max) {
        ssize_t got = read(fd, p + n, max - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            int number = errno;
            return err_set(err, ERR_IO, "could not read \"%s\": %s", path, strerrordesc_np(number));
        }
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_n = n;
    return 0;
}

int folder_read_file(struct arena *arena, int root, const char *path, size_t max, struct str *ret,
                     struct err *err)
{
    auto_fd fd = -1;
    uint64_t size;
    if (folder_open_file(root, path, &size, &fd, err) < 0)
        return -1;
    if (size > max)
        return err_set(err, ERR_TOO_LARGE, "\"%s\" has %llu bytes, the limit is %zu", path,
                       (unsigned long long)size, max);
    char *p = arena_alloc(arena, (size_t)size + 1);
    size_t n;
    if (read_full(fd, path, p, (size_t)size, &n, err) < 0)
        return -1;
    *ret = (struct str){p, n};
    return 0;
}

int folder_copy_file(int root, const char *path, source_piece_fn take, void *context,
                     struct err *err)
{
    auto_fd fd = -1;
    uint64_t size;
    if (folder_open_file(root, path, &size, &fd, err) < 0)
        return -1;
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    auto_mem char *p = mem_alloc(PIECE_BYTES);
    for (;;) {
        size_t n;
        if (read_full(fd, path, p, PIECE_BYTES, &n, err) < 0)
            return -1;
        if (n > 0 && take(context, (struct str){p, n}, err) < 0)
            return -1;
        if (n < PIECE_BYTES)
            return 0;
    }
}

static void dir_close_auto(DIR **dir)
{
    if (*dir != NULL)
        (void)closedir(*dir);
}

int folder_list(int root, const char *path, source_text_fn each, void *context, struct err *err)
{
    auto_fd fd = -1;
    if (folder_open_folder(root, path, &fd, err) < 0)
        return err->kind == ERR_NOT_FOUND ? 0 : -1;
    __attribute__((cleanup(dir_close_auto))) DIR *dir = fdopendir(fd);
    if (dir == NULL)
        return err_sys(err, "could not list \"%s\"", path);
    (void)take_fd(&fd); /* the stream's now */
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0) {
            int number = errno;
            return err_set(err, ERR_IO, "could not list \"%s\": %s", path, strerrordesc_np(number));
        }
        if (entry == NULL)
            return 0;
        struct str name = str_from(entry->d_name);
        if (!str_eq(name, STR(".")) && !str_eq(name, STR("..")) && each(context, name, err) < 0)
            return -1;
    }
}
