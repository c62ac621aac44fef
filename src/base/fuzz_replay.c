/* Runs a fuzz target over kept inputs as an ordinary test: each argument is a file or a folder. */
#include "base/base.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static void replay(int folder, const char *name)
{
    auto_fd fd = openat(folder, name, O_RDONLY | O_CLOEXEC);
    struct stat st;
    require(fd >= 0 && fstat(fd, &st) == 0);
    if (S_ISDIR(st.st_mode)) {
        DIR *dir = fdopendir(take_fd(&fd));
        require(dir != NULL);
        for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir))
            if (entry->d_name[0] != '.')
                replay(dirfd(dir), entry->d_name);
        (void)closedir(dir);
        return;
    }
    size_t size = (size_t)st.st_size;
    auto_mem uint8_t *data = mem_alloc(size);
    require(read(fd, data, size) == (ssize_t)size);
    (void)LLVMFuzzerTestOneInput(data, size);
    replayed++;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++)
        replay(AT_FDCWD, argv[i]);
    (void)printf("%zu inputs replayed\n", replayed);
    return replayed > 0 ? 0 : 1;
}
