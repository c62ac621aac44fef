/* For tests that work in a temporary folder. */
#ifndef HOLDFAST_BASE_TEST_TREE_H
#define HOLDFAST_BASE_TEST_TREE_H

#include <ftw.h>
#include <stdio.h>

static inline int test_tree_remove_one(const char *path, const struct stat *st, int flag,
                                       struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path);
}

/* Removes a folder and all that is in it. 0, or not, as nftw. */
static inline int test_tree_remove(const char *folder)
{
    return nftw(folder, test_tree_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

#endif
