/* Objects: put, head, get, delete, and URLs to them. */
#include "s3/s3_int.h"

#include <nettle/base64.h>
#include <nettle/md5.h>

#define DELETE_MAX 1000
#define DELETE_BYTES_MAX ((size_t)16 * 1024 * 1024)
#define PRESIGN_SECONDS_MAX (UINT64_C(7) * 24 * 3600)

int s3_put(struct call *call, struct s3 *s3, const char *key, struct str content,
           const uint8_t *sha256)
{
    struct s3_request request = {
        .operation = "PutObject",
        .method = "PUT",
        .key = key,
        .body = content.p != NULL ? content : STR(""),
        .body_sha256 = sha256,
        .is_content = true,
    };
    s3_add_header(&request, "content-type",
                  STR("application/octet-stream")); /* as readers see it */
    s3_add_encryption(s3, &request);
    struct fetch_answer answer;
    return s3_send(call, s3, &request, &answer);
}

int s3_head(struct call *call, struct s3 *s3, const char *key, uint64_t *ret_size)
{
    const struct s3_request request = {.operation = "HeadObject", .method = "HEAD", .key = key};
    struct fetch_answer answer;
    if (s3_send(call, s3, &request, &answer) < 0)
        return -1;
    struct err ignored;
    if (str_to_u64(fetch_header(&answer, "Content-Length"), INT64_MAX, ret_size, &ignored) < 0) {
        (void)err_set(&call->err, ERR_IO, "an answer of the object store is not understood");
        return err_why(&call->err, "HeadObject \"%s%.100s\": no usable Content-Length", s3->prefix,
                       key);
    }
    return 0;
}

/* ---- Get ---- */

struct getting {
    const char *key;
    uint64_t offset;
    uint64_t n;
    uint64_t got;
    int (*take)(void *context, struct str piece, struct err *err);
    void *context;
    bool ended; /* by `take`, or because the answer is not what was asked for */
};

static int getting_failed(struct getting *getting, enum err_kind kind, const char *say,
                          struct err *err)
{
    getting->ended = true;
    (void)err_set(err, kind, "%s", say);
    return err_why(err, "object \"%.100s\", %llu bytes from %llu on", getting->key,
                   (unsigned long long)getting->n, (unsigned long long)getting->offset);
}

/* "bytes 0-9/100" of a part; of a whole object, its length. */
static bool range_of(const struct fetch_answer *head, uint64_t *first, uint64_t *last)
{
    struct str range = fetch_header(head, "Content-Range");
    struct str length = fetch_header(head, "Content-Length");
    if (head->status == 200) {
        *first = 0;
        if (!str_eat_u64(&length, INT64_MAX, last) || *last == 0)
            return false;
        --*last;
        return true;
    }
    if (head->status != 206 || !str_eq(str_cut(&range, ' '), STR("bytes")) ||
        !str_eat_u64(&range, INT64_MAX, first) || !str_starts(range, STR("-")))
        return false;
    range = str_from_at(range, 1);
    return str_eat_u64(&range, INT64_MAX, last) && *last >= *first;
}

static int get_begin(void *context, const struct fetch_answer *head, struct err *err)
{
    struct getting *getting = context;
    uint64_t first = 0;
    uint64_t last = 0;
    bool known = range_of(head, &first, &last) && first == getting->offset + getting->got;
    uint64_t n = last - first + 1;
    uint64_t left = getting->n - getting->got;
    if (!known || n > left)
        return getting_failed(getting, ERR_IO,
                              "the object store answered with bytes that were not asked for", err);
    if (n < left)
        return getting_failed(getting, ERR_CORRUPT,
                              "an object in the object store is shorter than it should be", err);
    return 0;
}

static int get_take(void *context, struct str piece, struct err *err)
{
    struct getting *getting = context;
    if (piece.n > getting->n - getting->got)
        return getting_failed(getting, ERR_IO,
                              "the object store answered with bytes that were not asked for", err);
    if (getting->take(getting->context, piece, err) < 0) {
        getting->ended = true;
        return -1;
    }
    getting->got += piece.n;
    return 0;
}

static int get_rest(struct call *call, struct s3 *s3, struct getting *getting)
{
    struct s3_request request = {
        .operation = "GetObject",
        .method = "GET",
        .key = getting->key,
        .begin = get_begin,
        .take = get_take,
        .context = getting,
        .progress = &getting->got,
    };
    uint64_t first = getting->offset + getting->got;
    uint64_t last = getting->offset + getting->n - 1;
    s3_add_header(&request, "range",
                  str_printf(&call->arena, "bytes=%llu-%llu", (unsigned long long)first,
                             (unsigned long long)last));
    struct fetch_answer answer;
    return s3_send(call, s3, &request, &answer);
}

int s3_get(struct call *call, struct s3 *s3, const char *key, uint64_t offset, uint64_t n,
           int (*take)(void *context, struct str piece, struct err *err), void *context)
{
    struct getting getting = {
        .key = key, .offset = offset, .n = n, .take = take, .context = context};
    uint64_t end;
    if (!num_add(offset, n, &end) || end > INT64_MAX)
        return err_set(&call->err, ERR_RANGE, "a range of an object is larger than any can be");
    while (getting.got < n) {
        uint64_t before = getting.got;
        if (get_rest(call, s3, &getting) == 0)
            continue;
        if (!getting.ended && call->err.kind == ERR_BUSY && getting.got > before)
            continue; /* it broke, and had moved */
        if (call->err.kind == ERR_RANGE && !getting.ended)
            call->err.kind = ERR_CORRUPT;
        return -1;
    }
    return 0;
}

/* ---- Delete ---- */

static int delete_body(const struct s3 *s3, const char *const *keys, size_t n, struct buf *body,
                       struct err *err)
{
    buf_add_str(body, STR("<?xml version=\"1.0\" encoding=\"UTF-8\"?>"
                          "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                          "<Quiet>true</Quiet>"));
    for (size_t i = 0; i < n; i++) {
        buf_add_str(body, STR("<Object><Key>"));
        if (!s3_xml_add(body, str_from(s3->prefix)) || !s3_xml_add(body, str_from(keys[i])))
            return err_set(err, ERR_INVALID,
                           "an object's key contains a character that cannot be sent");
        buf_add_str(body, STR("</Key></Object>"));
    }
    buf_add_str(body, STR("</Delete>"));
    if (body->overflow)
        return err_set(err, ERR_TOO_LARGE, "the keys of %zu objects are too long", n);
    return 0;
}

struct deleting {
    bool is_result;
    struct s3_error error; /* of the key being read */
    char key[120];
    struct s3_error first; /* that counts */
    char first_key[120];
    unsigned failed;
};

static void keep_text(char *to, size_t size, struct str text)
{
    (void)snprintf(to, size, STR_FMT, STR_ARG(text));
}

static int delete_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)err;
    struct deleting *deleting = context;
    deleting->is_result = deleting->is_result || str_eq(path, STR("DeleteResult"));
    if (str_eq(path, STR("DeleteResult/Error/Key")))
        keep_text(deleting->key, sizeof(deleting->key), text);
    else if (str_eq(path, STR("DeleteResult/Error/Code")))
        keep_text(deleting->error.code, sizeof(deleting->error.code), text);
    else if (str_eq(path, STR("DeleteResult/Error/Message")))
        keep_text(deleting->error.message, sizeof(deleting->error.message), text);
    else if (str_eq(path, STR("DeleteResult/Error"))) {
        if (strcmp(deleting->error.code, "NoSuchKey") != 0 && deleting->failed++ == 0) {
            deleting->first = deleting->error;
            memcpy(deleting->first_key, deleting->key, sizeof(deleting->key));
        }
        deleting->error = (struct s3_error){0};
        deleting->key[0] = '\0';
    }
    return 0;
}

static int delete_parse(void *context, const struct fetch_answer *answer, struct err *err)
{
    (void)context;
    struct deleting deleting = {0};
    if (s3_xml_parse(answer->body, delete_element, &deleting, err) < 0)
        return -1;
    if (!deleting.is_result)
        return err_set(err, ERR_IO, "an answer of the object store is not understood");
    if (deleting.failed == 0)
        return 0;
    /* One that may not be deleted stays so; all else may pass. */
    bool denied = strcmp(deleting.first.code, "AccessDenied") == 0;
    (void)err_set(err, denied ? ERR_DENIED : ERR_BUSY,
                  denied ? "the object store refuses access" : "the object store failed");
    return err_why(err, "%u objects were not deleted, the first is \"%s\": %s, %s", deleting.failed,
                   deleting.first_key, deleting.first.code, deleting.first.message);
}

int s3_delete(struct call *call, struct s3 *s3, const char *const *keys, size_t n)
{
    require(n <= DELETE_MAX);
    if (n == 0)
        return 0;
    auto_buf body = BUF_INIT(DELETE_BYTES_MAX);
    if (delete_body(s3, keys, n, &body, &call->err) < 0)
        return -1;
    uint8_t digest[MD5_DIGEST_SIZE];
    char text[BASE64_ENCODE_RAW_LENGTH(MD5_DIGEST_SIZE)];
    struct md5_ctx md5;
    md5_init(&md5);
    md5_update(&md5, body.n, (const uint8_t *)body.p);
    md5_digest(&md5, sizeof(digest), digest);
    base64_encode_raw(text, sizeof(digest), digest);

    struct s3_request request = {
        .operation = "DeleteObjects",
        .method = "POST",
        .body = buf_str(&body),
        .answer_bytes_max = 4 * FETCH_ANSWER_BYTES_MAX,
        .parse = delete_parse,
    };
    s3_add_query(&request, "delete", STR(""));
    s3_add_header(&request, "content-md5", (struct str){text, sizeof(text)});
    s3_add_header(&request, "content-type", STR("application/xml"));
    struct fetch_answer answer;
    return s3_send(call, s3, &request, &answer);
}

/* ---- URLs ---- */

int s3_presign(struct call *call, struct s3 *s3, const char *key, int64_t ttl_us,
               struct str *ret_url)
{
    struct s3_keys *keys = NULL;
    if (s3_keys_get(s3->source, /* waits= */ true, &keys, &call->err) < 0)
        return -1;
    uint64_t seconds = ttl_us > CLOCK_SECOND_US ? (uint64_t)(ttl_us / CLOCK_SECOND_US) : 1;
    const struct s3_signing signing = {
        .method = "GET",
        .host = str_from(s3->readers.host),
        .path = s3_path(&call->arena, s3, &s3->readers, key),
        .payload = S3_UNSIGNED_PAYLOAD,
        .keys = keys,
        .region = s3->region,
        .service = "s3",
        .now = s3_now(s3),
    };
    struct str query = s3_presigned_query(
        &call->arena, &signing, seconds < PRESIGN_SECONDS_MAX ? seconds : PRESIGN_SECONDS_MAX);
    s3_keys_give(s3->source, keys);
    auto_buf url = BUF_INIT((size_t)128 * 1024);
    buf_add_str(&url, str_from(s3->readers.url));
    buf_add_str(&url, signing.path);
    buf_add_char(&url, '?');
    buf_add_str(&url, query);
    require(!url.overflow);
    *ret_url = str_dup(&call->arena, buf_str(&url));
    return 0;
}
