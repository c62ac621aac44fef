/* The store over an object store, inside. Its functions are called bucket_…: s3_… are the ones of
 * the room below. */
#ifndef HOLDFAST_BLOB_S3_INT_H
#define HOLDFAST_BLOB_S3_INT_H

#include "blob/blob_int.h"
#include "s3/s3.h"

struct bucket_store {
    struct blob_store base;
    struct s3 *s3; /* owned */
    struct blob_s3_options options;
};

static inline struct bucket_store *bucket_store_of(struct blob_store *store)
{
    return (struct bucket_store *)store; /* its first member */
}

/* What a request to the object store came to, as this room's callers know it. Always -1. */
int bucket_failed(const struct call *call, struct err *err);

/* ---- Keys (blob_s3_stage.c) ---- */

#define BUCKET_UNDER "blobs/" /* all keys begin with it */
#define BUCKET_SUFFIX_BYTES 8
#define BUCKET_KEY_BYTES \
    (sizeof(BUCKET_UNDER "ab/") - 1 + BLOB_UPLOAD_ID_BYTES + 1 + BUCKET_SUFFIX_BYTES)

/* blobs/ab/<id of the upload, which begins with ab>.<8 random hexadecimal digits>. The random part
 * is there because an upload makes several objects, and one who comes late must not write over
 * what another made. */
struct bucket_key {
    char text[BUCKET_KEY_BYTES + 1]; /* NUL-ended; "": none */
};

void bucket_key_make(const char *id, struct bucket_key *ret);
/* Keys come from rows and lists; nothing else than one of our shape is ever asked for. */
bool bucket_key_parse(struct str text, struct bucket_key *ret);
/* borrowed from the key */
struct str bucket_key_id(const struct bucket_key *key);

static inline bool bucket_key_is(const struct bucket_key *key, struct str text)
{
    return str_eq(str_from(key->text), text);
}

/* ---- Stages (blob_s3_stage.c) ---- */

#define BUCKET_PARTS_MAX 10000                          /* of a multipart upload; S3's limit */
#define BUCKET_PART_BYTES_MIN ((size_t)5 * 1024 * 1024) /* of all but the last; S3's limit */
#define BUCKET_MULTIPART_ID_BYTES_MAX 1024
/* Room for a full list of parts with the longest tags. */
#define BUCKET_STAGE_BYTES_MAX \
    (BUCKET_PARTS_MAX * (sizeof("18446744073709551615 \n") - 1 + S3_ETAG_BYTES_MAX) + 2048)

/* Where an upload's bytes are: the parts of a multipart upload, and behind them an object of its
 * own for what is too little to be a part, the tail. */
struct bucket_stage {
    struct bucket_key key; /* of the multipart upload; "": none was begun */
    char *multipart;       /* owned: its id; NULL: none */
    bool listed;           /* all that is known is that it was begun */
    struct s3_etag *etags; /* owned: of each part, in order */
    uint64_t *sizes;       /* owned: likewise, bytes */
    size_t n_parts;
    uint64_t parts_bytes; /* their sum */
    struct bucket_key tail;
    uint64_t tail_bytes;
};

/* As text for a row; empty when nothing is staged. arena */
struct str bucket_stage_format(const struct bucket_stage *stage, struct arena *arena);
/* The text comes from a row, which may be damaged. `id`: of the upload it has to belong to.
 * Errors: CORRUPT. ret: the caller ends it by bucket_stage_done. */
int bucket_stage_parse(struct str text, const char *id, struct bucket_stage *ret, struct err *err);
void bucket_stage_done(struct bucket_stage *stage);
/* False: there are as many parts as there can be. */
bool bucket_stage_add(struct bucket_stage *stage, const struct s3_etag *etag, uint64_t size);
/* Whether what the store gave as an id or a tag can stand in a stage. */
bool bucket_word_valid(struct str word, size_t max);

/* ---- Uploads (blob_s3_upload.c) ---- */

int bucket_upload_create(struct blob_store *store, const char *id, struct blob_upload **ret,
                         struct err *err);
int bucket_upload_cut(struct blob_upload *upload, uint64_t offset, struct str stage,
                      struct err *err);
int bucket_upload_write(struct blob_upload *upload, const void *p, size_t n, struct err *err);
int bucket_upload_read(struct blob_upload *upload, bool whole, blob_take *take, void *context,
                       struct err *err);
int bucket_upload_sync(struct blob_upload *upload, struct err *err);
struct str bucket_upload_stage(const struct blob_upload *upload, struct arena *arena);
void bucket_upload_settle(struct blob_upload *upload);
int bucket_upload_commit(struct blob_upload *upload, const struct oci_digest *digest,
                         struct arena *arena, struct str *ret_location, struct err *err);
void bucket_upload_close(struct blob_upload *upload);
int bucket_upload_discard(struct blob_store *store, const char *id, struct str stage,
                          struct str kept, struct err *err);
int bucket_upload_drop(struct blob_upload *upload, struct str kept, struct err *err);
/* What an upload holds in memory now, for tests. */
size_t bucket_upload_memory(const struct blob_upload *upload);

#endif
