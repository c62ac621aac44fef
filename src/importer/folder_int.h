/* Reading below a folder that somebody else wrote: no symbolic link is followed, nothing but
 * regular files is opened, and what is read into memory is bounded. */
#ifndef HOLDFAST_IMPORTER_FOLDER_INT_H
#define HOLDFAST_IMPORTER_FOLDER_INT_H

#include "importer/source_int.h"

/* Opens the folder itself, whose own path may hold symbolic links. ret_fd: owned.
 * Errors: NOT_FOUND, IO. */
int folder_open_root(const char *path, int *ret_fd, struct err *err) MUST_CHECK;
/* Opens a file or folder by its path below `root`. ret_fd: owned.
 * Errors: NOT_FOUND; INVALID (a symbolic link, or not what it should be); IO. */
int folder_open_file(int root, const char *path, uint64_t *ret_size, int *ret_fd,
                     struct err *err) MUST_CHECK;
int folder_open_folder(int root, const char *path, int *ret_fd, struct err *err) MUST_CHECK;
/* A whole file. arena. Errors: as above, TOO_LARGE. */
int folder_read_file(struct arena *arena, int root, const char *path, size_t max, struct str *ret,
                     struct err *err) MUST_CHECK;
/* The file piece by piece. Errors: as above, what `take` gave. */
int folder_copy_file(int root, const char *path, source_piece_fn take, void *context,
                     struct err *err) MUST_CHECK;
/* Names in a folder but "." and "..", in no order; a folder that is not there has none. */
int folder_list(int root, const char *path, source_text_fn each, void *context,
                struct err *err) MUST_CHECK;

#endif
