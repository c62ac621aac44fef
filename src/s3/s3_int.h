/* What the files of this room share. From below: bytes and text (xml, sign, time), credentials, one
 * request with its retries, and the operations on top. */
#ifndef HOLDFAST_S3_INT_H
#define HOLDFAST_S3_INT_H

#include "fetch/fetch.h"
#include "s3/s3.h"

struct s3_pair {
    const char *name;
    struct str value;
};

/* ---- s3_xml.c ---- */

/* Is told of each element at its end: by the way to it, "ListBucketResult/Contents/Key", and the
 * text right before its end, borrowed. Returns -1 with *err to stop. */
typedef int s3_xml_element(void *context, struct str path, struct str text, struct err *err);

/* Depth, names and texts are bounded; a document type is refused. Errors: IO; what `element`
 * gave. */
int s3_xml_parse(struct str xml, s3_xml_element *element, void *context,
                 struct err *err) MUST_CHECK;
/* Text as the content of an element. False: XML 1.0 cannot express it. */
bool s3_xml_add(struct buf *buf, struct str text) MUST_CHECK;

#define S3_WORDS_BYTES_MAX 160
/* An <Error> document; texts are cut to fit. */
struct s3_error {
    char code[64];
    char message[S3_WORDS_BYTES_MAX];
    char request_id[80];
    char region[40]; /* that the bucket is in, where the store says so */
};
/* False: it is none. */
bool s3_error_parse(struct str xml, struct s3_error *ret);

/* ---- s3_time.c ---- */

/* "2026-11-24T11:22:33Z", with or without a fraction. */
bool s3_time_parse(struct str text, struct wall_us *ret);
/* "Tue, 24 Nov 2026 11:22:33 GMT" */
bool s3_http_date_parse(struct str text, struct wall_us *ret);

/* ---- s3_sign.c: AWS Signature Version 4 ---- */

struct s3_keys {
    unsigned references; /* under the lock of their source */
    char *access;        /* owned, as the next two */
    char *secret;
    char *token;            /* NULL: they are not temporary */
    struct wall_us expires; /* 0: never */
};

struct s3_signing {
    const char *method;
    struct str host; /* as the Host header has it */
    struct str path; /* as it is sent: percent-encoded */
    const struct s3_pair *query;
    size_t n_query;
    const struct s3_pair *headers; /* names in lower case; Host is not among them */
    size_t n_headers;
    struct str payload; /* hash in hexadecimal, or UNSIGNED-PAYLOAD */
    const struct s3_keys *keys;
    const char *region;
    const char *service;
    struct wall_us now;
};

#define S3_SIGNED_MAX 24 /* headers, or query parameters */
#define S3_STAMP_BYTES 17
#define S3_HASH_TEXT_BYTES 65
#define S3_UNSIGNED_PAYLOAD STR("UNSIGNED-PAYLOAD")

/* RFC 3986: all but unreserved characters, and '/' where that is kept. */
void s3_encode(struct buf *buf, struct str text, bool keep_slashes);
/* The reverse; '+' is a space. False: it is not encoded text. arena */
bool s3_decode(struct arena *arena, struct str text, struct str *ret);
/* "20261124T112233Z" */
void s3_stamp(struct wall_us t, char ret[S3_STAMP_BYTES]);
void s3_hash_text(struct str content, char ret[S3_HASH_TEXT_BYTES]);
void s3_digest_text(const uint8_t sha256[SHA256_DIGEST_SIZE], char ret[S3_HASH_TEXT_BYTES]);
/* Sorted and encoded, without '?'. arena */
struct str s3_query(struct arena *arena, const struct s3_pair *query, size_t n_query);
/* The value of the header Authorization. The caller sends x-amz-date and the like as headers. arena
 */
struct str s3_authorization(struct arena *arena, const struct s3_signing *signing);
/* The query of a presigned URL; the headers are not used. arena */
struct str s3_presigned_query(struct arena *arena, const struct s3_signing *signing,
                              uint64_t ttl_seconds);

/* ---- s3_credentials.c ---- */

struct s3_source;

struct s3_source_options {
    const char *access_key; /* both empty: from the environment, see s3.h */
    const char *secret_key;
    const char *region;
    int64_t patience_us;
};
/* Reads the environment, and no network. Errors: INVALID. ret: owned. */
int s3_source_new(const struct s3_source_options *options, struct s3_source **ret,
                  struct err *err) MUST_CHECK;
/* From then on nobody waits for keys. */
void s3_source_give_up(struct s3_source *source, struct mono_us at);
/* Takes NULL. */
void s3_source_free(struct s3_source *source);
/* Keys that are valid now; give them back. Those that expire are renewed in the background. When
 * there are none, waits for them until the patience is over, or fails at once without `waits`.
 * Errors: DENIED (there are none, or they are refused), BUSY. */
int s3_keys_get(struct s3_source *source, bool waits, struct s3_keys **ret,
                struct err *err) MUST_CHECK;
void s3_keys_give(struct s3_source *source, struct s3_keys *keys);
/* The store does not take these keys. True: other ones may come, ask for them. */
bool s3_keys_refused(struct s3_source *source, const struct s3_keys *keys);

/* ---- s3_obtain.c: where temporary keys come from ---- */

enum s3_source_kind {
    S3_SOURCE_STATIC,
    S3_SOURCE_WEB_IDENTITY,
    S3_SOURCE_CONTAINER,
    S3_SOURCE_INSTANCE,
};
/* What the environment says; texts owned, may be NULL. */
struct s3_places {
    char *url; /* of STS, the container's endpoint, or the instance's service */
    char *token_file;
    char *role;
    char *session;
    char *authorization;
    bool disabled; /* AWS_EC2_METADATA_DISABLED */
};
/* Reads the environment. Errors: INVALID. */
int s3_places_init(struct s3_places *places, const char *region, enum s3_source_kind *ret_kind,
                   struct err *err) MUST_CHECK;
void s3_places_done(struct s3_places *places);
/* Asks for keys. Errors: DENIED, BUSY, IO. ret: owned. */
int s3_obtain(struct call *call, struct fetch *fetch, enum s3_source_kind kind,
              const struct s3_places *places, struct s3_keys **ret) MUST_CHECK;
/* Clears what is secret. Takes NULL. */
void s3_keys_free(struct s3_keys *keys);

/* ---- s3.c: the client ---- */

/* Where requests, or presigned URLs, go. */
struct s3_base {
    char *url;  /* owned: "https://host:port[/path]", what stands before `path` */
    char *host; /* owned: what is signed as Host */
    char *path; /* owned: "/bucket" or empty */
    bool tls;
};

struct s3 {
    char *bucket; /* owned, as all texts here */
    char *prefix;
    char *region;
    char *encryption; /* NULL: none */
    char *encryption_key;
    struct s3_base store;
    struct s3_base readers; /* of presigned URLs */
    int64_t patience_us;
    void (*observe)(void *context, const char *operation, unsigned status, int64_t us);
    void *observe_context;
    struct fetch *fetch;
    struct s3_source *source;
    _Atomic int64_t skew_us;         /* the store's clock before ours */
    _Atomic int64_t silent_since_us; /* of clock_mono: no answer came since; 0: the last one did */
    _Atomic int64_t give_up_us;      /* of clock_mono; see s3_give_up */
};

/* The time by the store's clock. */
struct wall_us s3_now(const struct s3 *s3);
/* "/bucket/prefix/key", encoded. `key` NULL: the bucket. arena. */
struct str s3_path(struct arena *arena, const struct s3 *s3, const struct s3_base *base,
                   const char *key);
void s3_observe(const struct s3 *s3, const char *operation, unsigned status, int64_t us);

/* ---- s3_request.c: one request ---- */

#define S3_PAIRS_MAX 12

struct s3_request {
    const char *operation; /* static: its name in AWS's documentation */
    const char *method;
    const char *key; /* NULL: the bucket */
    struct s3_pair query[S3_PAIRS_MAX];
    size_t n_query;
    struct s3_pair headers[S3_PAIRS_MAX]; /* lower case */
    size_t n_headers;
    struct str body;            /* p NULL: none */
    const uint8_t *body_sha256; /* 32 bytes, of `body`; NULL: not known */
    bool is_content;            /* the body is what clients push: over https it is not hashed */
    size_t answer_bytes_max;
    /* Reads the body of a 2xx answer; one that it cannot read (IO) is asked for again. */
    int (*parse)(void *context, const struct fetch_answer *answer, struct err *err);
    int (*begin)(void *context, const struct fetch_answer *head, struct err *err);
    int (*take)(void *context, struct str piece, struct err *err);
    void *context;
    const uint64_t *progress; /* of `take`: once it moved, a failure is the caller's; or NULL */
    unsigned errors_most;     /* answers of status 500 after which it ends; 0: while there is
                                 patience */
};

void s3_add_query(struct s3_request *request, const char *name, struct str value);
void s3_add_header(struct s3_request *request, const char *name, struct str value);
/* x-amz-server-side-encryption, as configured. */
void s3_add_encryption(const struct s3 *s3, struct s3_request *request);

/* The signed request. Texts: arena, or the request's. */
void s3_sign_request(struct arena *arena, const struct s3 *s3, const struct s3_request *request,
                     struct str payload, const struct s3_keys *keys, struct fetch_request *ret);
/* Sends it until there is an answer of 2xx. Errors: see s3.h; BUSY also for a failure after
 * `progress`. */
int s3_send(struct call *call, struct s3 *s3, const struct s3_request *request,
            struct fetch_answer *ret) MUST_CHECK;
/* Time to wait before attempt number `attempt` (from 1) is made again: with jitter. */
int64_t s3_backoff_us(unsigned attempt);
/* Whether an answer of this status, or none (0), may become another by itself. */
bool s3_is_passing(unsigned status);

/* ---- s3_list.c ---- */

/* One page of a list, as it came. Texts: arena, decoded. */
struct s3_page_entry {
    struct str key; /* with the prefix */
    struct str id;  /* of an upload */
    uint64_t size;
    struct wall_us time;
};
struct s3_page {
    struct arena *arena;
    struct s3_page_entry *entries; /* arena */
    size_t n;
    size_t capacity;
    struct s3_page_entry entry; /* the one being read */
    bool is_list;
    bool truncated;
    struct str next_key; /* continuation token, or key marker */
    struct str next_id;
};
/* Errors: IO. */
int s3_page_parse(struct s3_page *page, struct str xml, struct err *err) MUST_CHECK;

#endif
