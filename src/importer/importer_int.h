/* What the files of an import in progress share. */
#ifndef HOLDFAST_IMPORTER_INT_H
#define HOLDFAST_IMPORTER_INT_H

#include "importer/source_int.h"
#include "registry/registry.h"

/* ---- keys.c: what is being copied, and what was looked at ---- */

struct key {
    uint8_t bytes[16];
};
/* Of a blob (`repository` empty), or of a manifest in a repository. */
struct key key_of(struct str repository, const struct oci_digest *digest);

/* Things that somebody is copying now. Who wants one of them waits until it is there: no blob is
 * copied twice at a time. A thread may hold a manifest while it takes what this names, and never
 * the other way: digests of digests have no circles. */
struct claims;
struct claims *claims_new(void);
void claims_free(struct claims *claims);
void claims_take(struct claims *claims, struct key key);
void claims_release(struct claims *claims, struct key key);

/* Remembers keys, up to a bound: after that it forgets, and things are looked at again. */
struct seen;
struct seen *seen_new(void);
void seen_free(struct seen *seen);
/* Whether the key is new. */
bool seen_add(struct seen *seen, struct key key);

/* ---- importer.c ---- */

struct importer {
    struct importer_source *source;
    struct registry *registry; /* NULL: nothing is there yet */
    const struct importer_options *options;
    struct claims *claims;
    struct seen *seen;
    struct queue *queue;
    atomic_bool failed;    /* nothing more is to be begun */
    pthread_mutex_t mutex; /* of what follows, and held while the options' functions are called */
    struct err failure;    /* when failed: the first */
    struct importer_counts counts;
    unsigned n_silent; /* failures of the source to answer, one after the other */
};

/* Adds to one of importer->counts. */
void importer_count(struct importer *importer, uint64_t *count, uint64_t n);
/* Takes it back. */
void importer_uncount(struct importer *importer, uint64_t *count, uint64_t n);
/* `what` was not brought, because of `err`. */
void importer_skip(struct importer *importer, struct str what, const struct err *err);
/* The source has answered. */
void importer_heard(struct importer *importer);
void importer_report(struct importer *importer, enum importer_finding finding, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* Ends the import: what the registry failed with would fail everything else, too. */
void importer_fail(struct importer *importer, const struct err *err);

/* ---- image.c ---- */

/* Brings what a repository of the source has under a reference, and all that it needs. Reports what
 * cannot be brought. */
void image_import(struct importer *importer, const struct oci_name *from, const struct oci_name *to,
                  struct str reference);

#endif
