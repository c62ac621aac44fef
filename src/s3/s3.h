/* s3: the object store's API, as far as a blob store needs it: objects, multipart uploads, lists,
 * presigned URLs. Signs with AWS Signature Version 4 and finds its credentials. Knows no blob.
 *
 * Requests are retried with back-off after 5xx, 429, time-outs and broken connections, and once
 * after an expired credential; each of them may be repeated without harm. When nobody has got an
 * answer for some seconds the store is away, and patience is short until somebody has. Keys are
 * given without the configured prefix. All wait for the network but s3_presign and s3_stream. A
 * clock that is wrong is corrected by the store's. Threads: any. */
#ifndef HOLDFAST_S3_H
#define HOLDFAST_S3_H

#include "base/base.h"
#include "base/stream.h"

struct s3;

enum s3_addressing {
    S3_ADDRESSING_AUTO, /* path style where an endpoint is given, else virtual-host style */
    S3_ADDRESSING_PATH, /* https://endpoint/bucket/key */
    S3_ADDRESSING_HOST, /* https://bucket.endpoint/key */
};

struct s3_options {
    const char *bucket;
    const char *prefix;   /* of every key; empty, or ends with '/' */
    const char *endpoint; /* "https://host[:port]"; empty: AWS, by region */
    const char *region;   /* empty: AWS_REGION, AWS_DEFAULT_REGION, else us-east-1 */
    enum s3_addressing addressing;
    const char *ca_file; /* empty: the system's */
    /* Both empty: from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
     * AWS_SESSION_TOKEN), else a web-identity token (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN,
     * exchanged at STS), else the container's or the instance's metadata service
     * (AWS_CONTAINER_CREDENTIALS_{RELATIVE,FULL}_URI; IMDSv2). Credentials that expire are renewed
     * before they do. */
    const char *access_key;
    const char *secret_key;
    const char *encryption;     /* x-amz-server-side-encryption: empty, "AES256" or "aws:kms" */
    const char *encryption_key; /* KMS key id; may be empty */
    /* Base of presigned URLs, "https://cdn.example[/path]"; empty: as our own requests go. With
     * path addressing it is another name of the store: the bucket follows, and this name is signed.
     * With host addressing it is a network in front of the bucket, which asks the store for it
     * under the bucket's own name: that one is signed, and the key follows. */
    const char *public_url;
    int64_t patience_us;  /* for one call with all its retries; large bodies have a second more
                             for each MiB, and reading has it anew whenever bytes came */
    unsigned connections; /* kept open when idle */
    void (*observe)(void *context, const char *operation, unsigned status, int64_t us); /* each
                                        attempt; status 0: none came. May be NULL */
    void *observe_context;
};

/* Reads no network. Errors: INVALID (an endpoint, a bucket's name). ret: owned. */
int s3_new(const struct s3_options *options, struct s3 **ret, struct err *err) MUST_CHECK;
/* From then on nobody waits: calls under way and later ones end within a second, BUSY. May be said
 * again, for another time. */
void s3_give_up(struct s3 *s3, struct mono_us at);
/* Takes NULL. */
void s3_free(struct s3 *s3);

/* Errors of all calls below, besides those named: BUSY (it was away, slow or throttling until the
 * patience was over), DENIED (credentials or rights; `why` has the store's words), IO. */

#define S3_ETAG_BYTES_MAX 128
struct s3_etag {
    char text[S3_ETAG_BYTES_MAX + 1]; /* without quotes */
};

/* Stores an object. `sha256`: of the content, 32 bytes, where it is known; then the store compares.
 * NULL: over https nothing is hashed, as TLS sees to the bytes, and over http it is hashed here. */
int s3_put(struct call *call, struct s3 *s3, const char *key, struct str content,
           const uint8_t *sha256) MUST_CHECK;
/* Errors: NOT_FOUND. */
int s3_head(struct call *call, struct s3 *s3, const char *key, uint64_t *ret_size) MUST_CHECK;
/* `n` bytes from `offset` on, piece by piece; a connection that breaks is taken up where it broke.
 * Errors: NOT_FOUND; CORRUPT (the object is shorter); what `take` gave. */
int s3_get(struct call *call, struct s3 *s3, const char *key, uint64_t offset, uint64_t n,
           int (*take)(void *context, struct str piece, struct err *err), void *context) MUST_CHECK;
/* The same without waiting, but for the first credentials. Whatever breaks is taken up again, with
 * back-off, until the patience is over without a byte. `call_id`: for the log. ret: owned. */
int s3_stream(struct s3 *s3, const char *key, uint64_t offset, uint64_t n, const char *call_id,
              struct stream **ret, struct err *err) MUST_CHECK;
/* Deletes up to 1000 objects in one request. That one is not there is success. */
int s3_delete(struct call *call, struct s3 *s3, const char *const *keys, size_t n) MUST_CHECK;

/* Multipart uploads. `ret_id`: arena. Parts count from 1; all but the last have 5 MiB at least.
 * They are hashed as the content of s3_put is whose hash is not known. */
int s3_multipart_begin(struct call *call, struct s3 *s3, const char *key,
                       struct str *ret_id) MUST_CHECK;
/* Errors: NOT_FOUND (aborted, or completed). */
int s3_multipart_put(struct call *call, struct s3 *s3, const char *key, struct str id,
                     unsigned part, struct str content, struct s3_etag *ret) MUST_CHECK;
/* Errors: NOT_FOUND (aborted, or completed before: perhaps by an attempt that was not answered);
 * CONFLICT (a part is not what its tag says). */
int s3_multipart_complete(struct call *call, struct s3 *s3, const char *key, struct str id,
                          const struct s3_etag *parts, size_t n_parts) MUST_CHECK;
/* That it is not there is success. */
int s3_multipart_abort(struct call *call, struct s3 *s3, const char *key, struct str id) MUST_CHECK;

struct s3_object {
    struct str key; /* without the prefix; borrowed during the call */
    uint64_t size;
    struct wall_us modified;
};
/* All objects whose key begins with `under`, in the order of keys, page by page. `each` returns -1
 * with *err to stop. */
int s3_list(struct call *call, struct s3 *s3, const char *under,
            int (*each)(void *context, const struct s3_object *object, struct err *err),
            void *context) MUST_CHECK;
/* Multipart uploads that are neither completed nor aborted. */
int s3_multipart_list(struct call *call, struct s3 *s3, const char *under,
                      int (*each)(void *context, struct str key, struct str id,
                                  struct wall_us begun, struct err *err),
                      void *context) MUST_CHECK;

/* A URL with which anybody may GET the object for `ttl_us`. arena. Errors: those of credentials
 * alone; it is renewed in the background, and waits only when there is none. */
int s3_presign(struct call *call, struct s3 *s3, const char *key, int64_t ttl_us,
               struct str *ret_url) MUST_CHECK;

#endif
