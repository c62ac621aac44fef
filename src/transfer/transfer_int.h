/* transfer, inside: the two sides of a copy, and what makes one the same as the other. */
#ifndef HOLDFAST_TRANSFER_INT_H
#define HOLDFAST_TRANSFER_INT_H

#include "blob/blob.h"
#include "db/db.h"
#include "meta/meta.h"
#include "transfer/transfer.h"

#define PAGE 128 /* entries that are looked at, and changed in one transaction */

/* What a repository has, in the order in which it is copied. */
enum entry_kind { ENTRY_LINK, ENTRY_MANIFEST, ENTRY_TAG };
#define ENTRY_KINDS 3

struct entry {
    struct str key;      /* a digest; of a tag its name */
    struct str text;     /* link: location; manifest: media type; tag: its manifest's digest */
    uint64_t size;       /* of a blob or manifest */
    int64_t id;          /* of a manifest's row */
    struct wall_us at;   /* linked, pushed, set */
    struct wall_us made; /* link: when the blob was stored */
    struct str content;  /* manifest: filled where it is copied */
};

/* ---- Sides ---- */

struct side;

/* All work on side->call, whose connection is checked out: reading, or writing for those that
 * change something. Results live in its arena. Lists are in byte order. */
struct side_kind {
    bool names_places; /* it records where the other side has the bytes of a blob */
    int (*repository_next)(struct side *side, struct str after, struct meta_repository_row *ret,
                           bool *ret_found);
    int (*list)(struct side *side, enum entry_kind kind, const struct meta_page *page,
                struct entry *ret, size_t *ret_n);
    int (*content)(struct side *side, int64_t id, struct str *ret, bool *ret_found);
    /* It is not there. */
    int (*repository_put)(struct side *side, const struct meta_repository_row *row,
                          int64_t *ret_id);
    /* It has no entries any more. */
    int (*repository_remove)(struct side *side, int64_t id);
    /* The entry is not there. */
    int (*put)(struct side *side, enum entry_kind kind, int64_t repository,
               const struct entry *entry);
    int (*remove)(struct side *side, enum entry_kind kind, int64_t repository,
                  const struct entry *entry);
    /* For many threads, each with a call of its own. Whether a row says that the side has the
     * blob's bytes; reading. */
    int (*blob_find)(struct call *call, const struct oci_digest *digest, bool *ret_found);
    /* Records that it has them; writing. *ret_location: where, when it had them already. */
    int (*blob_adopt)(struct call *call, const struct blob_ref *blob, struct wall_us made,
                      struct str *ret_location);
};

struct side {
    const struct side_kind *kind;
    struct call call;         /* of its own: each side has a connection */
    struct db *db;            /* borrowed */
    struct blob_store *blobs; /* borrowed */
    int64_t snapshot;         /* of a backup: the one that is read or written */
    bool frozen;              /* call.db is checked out all the time, and sees one moment */
    enum { LINKS_SORTED_ONCE, LINKS_SORTED, LINKS_WALKED } links_way; /* of a registry's list */
};

extern const struct side_kind side_registry;
extern const struct side_kind side_backup;

void side_init(struct side *side, const struct side_kind *kind, struct db *db,
               struct blob_store *blobs);
/* Gives connection and memory back. Takes a zeroed one. */
void side_done(struct side *side);
#define auto_side __attribute__((cleanup(side_done))) struct side
/* All that is read of the side until side_thaw is of this moment. */
int side_freeze(struct side *side) MUST_CHECK;
void side_thaw(struct side *side);
/* Checks a connection out for reading, unless the side is frozen. */
int side_read(struct side *side) MUST_CHECK;
void side_read_end(struct side *side);
/* Hands the side's failure on; -1. */
int side_failed(const struct side *side, struct err *err);
/* Marks `to` as a copy of the registry `source`. `in_place`: it may be that registry itself.
 * Errors: CONFLICT (it has repositories that are not copies of it, and `overwrite` is not set). */
int side_claim(struct side *to, struct str source, bool in_place, bool overwrite,
               struct err *err) MUST_CHECK;

/* Where a list goes on: the last key that was seen. */
#define KEY_BYTES_MAX 255
struct key {
    char text[KEY_BYTES_MAX];
    size_t n;
};
/* Errors: CORRUPT (no name and no digest is so long). */
int key_set(struct key *key, struct str text, struct err *err) MUST_CHECK;
struct str key_str(const struct key *key);

/* ---- One run ---- */

struct work {
    struct side *from;
    struct side *to;
    const struct transfer_options *options;
    struct transfer_counts counts;
    bool compare;          /* nothing is changed, each difference is told */
    bool bytes_first;      /* a link is put when its bytes are there; else they come later */
    bool in_place;         /* the target's store may have a blob's bytes where its link says */
    bool distrusts;        /* whether the target still has the bytes that it names is looked up */
    struct key repository; /* the one at hand */
    atomic_uint_fast64_t bytes; /* copied or hashed until now; for progress */
    uint64_t bytes_total;       /* 0: not known */
    pthread_mutex_t mutex;      /* held in every call of `progress` and `trouble`; guards
                                   counts.troubles */
};
#define WORK_INIT(given) .options = (given), .mutex = PTHREAD_MUTEX_INITIALIZER

bool work_stops(const struct work *work);
/* BUSY; -1. */
int work_stopped(struct err *err);
void work_progress(struct work *work, const char *stage, uint64_t done, uint64_t total);
void work_trouble(struct work *work, const char *fmt, ...)
    __attribute__((format(printf, 2, 3), nonnull(2)));

/* diff.c: makes `to` like `from`. A failure of either side is moved to *err. `total`: of
 * repositories, for progress. */
int diff_all(struct work *work, uint64_t total, struct err *err) MUST_CHECK;

/* crew.c: calls `each` for 0..n-1, by several threads at a time, each with a call of its own, and
 * ends with the first failure. */
typedef int (*crew_fn)(void *context, struct call *call, size_t i);
int crew_run(struct work *work, size_t n, crew_fn each, void *context, struct err *err) MUST_CHECK;

/* bytes.c: sees to it that `to` has the bytes of these blobs, at most PAGE. Of each that could not
 * be had, after telling so, there[i] is false. */
int bytes_copy(struct work *work, const struct entry *blobs, size_t n, bool *there,
               struct err *err) MUST_CHECK;
/* Hashes these blobs of `to` again, and tells of each that is not what it should be. */
int bytes_verify(struct work *work, const struct entry *blobs, size_t n,
                 struct err *err) MUST_CHECK;

#endif
