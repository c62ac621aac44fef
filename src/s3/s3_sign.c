/* AWS Signature Version 4, as "Authenticating Requests (AWS Signature Version 4)" in the S3 API
 * reference has it: a canonical form of the request is hashed, and signed by a key that is derived
 * from the secret for one day, region and service. */
#include "s3/s3_int.h"

#include <nettle/hmac.h>

#define ALGORITHM "AWS4-HMAC-SHA256"
#define QUERY_BYTES_MAX ((size_t)64 * 1024)
#define CANONICAL_BYTES_MAX ((size_t)256 * 1024)

/* ---- Text ---- */

static bool is_unreserved(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '.' || c == '_' || c == '~';
}

void s3_encode(struct buf *buf, struct str text, bool keep_slashes)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (is_unreserved(c) || (c == '/' && keep_slashes))
            buf_add_char(buf, (char)c);
        else
            buf_printf(buf, "%%%02X", c);
    }
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

bool s3_decode(struct arena *arena, struct str text, struct str *ret)
{
    char *out = arena_alloc(arena, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] != '%') {
            out[n++] = text.p[i] == '+' ? ' ' : text.p[i];
            continue;
        }
        int high = text.n - i > 2 ? hex_digit(text.p[i + 1]) : -1;
        int low = high >= 0 ? hex_digit(text.p[i + 2]) : -1;
        if (low < 0)
            return false;
        out[n++] = (char)(high * 16 + low);
        i += 2;
    }
    out[n] = '\0';
    *ret = (struct str){out, n};
    return true;
}

void s3_digest_text(const uint8_t sha256[SHA256_DIGEST_SIZE], char ret[S3_HASH_TEXT_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < SHA256_DIGEST_SIZE; i++) {
        ret[2 * i] = digits[sha256[i] >> 4];
        ret[2 * i + 1] = digits[sha256[i] & 0xF];
    }
    ret[S3_HASH_TEXT_BYTES - 1] = '\0';
}

void s3_stamp(struct wall_us t, char ret[S3_STAMP_BYTES])
{
    time_t seconds = (time_t)(t.us / CLOCK_SECOND_US);
    struct tm parts;
    (void)gmtime_r(&seconds, &parts);
    require(strftime(ret, S3_STAMP_BYTES, "%Y%m%dT%H%M%SZ", &parts) == S3_STAMP_BYTES - 1);
}

void s3_hash_text(struct str content, char ret[S3_HASH_TEXT_BYTES])
{
    struct hash hash;
    uint8_t digest[HASH_BYTES_MAX];
    hash_init(&hash, HASH_SHA256);
    hash_update(&hash, content.p, content.n);
    hash_final(&hash, digest);
    s3_digest_text(digest, ret);
}

/* ---- The canonical form ---- */

static int by_name(const void *a, const void *b)
{
    const struct s3_pair *one = a;
    const struct s3_pair *two = b;
    return strcmp(one->name, two->name);
}

static size_t sort(const struct s3_pair *from, size_t n, struct s3_pair to[S3_SIGNED_MAX])
{
    require(n <= S3_SIGNED_MAX);
    if (n > 0)
        memcpy(to, from, n * sizeof(*to));
    qsort(to, n, sizeof(*to), by_name);
    return n;
}

struct str s3_query(struct arena *arena, const struct s3_pair *query, size_t n_query)
{
    struct s3_pair sorted[S3_SIGNED_MAX];
    auto_buf text = BUF_INIT(QUERY_BYTES_MAX);
    size_t n = sort(query, n_query, sorted);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(&text, '&');
        s3_encode(&text, str_from(sorted[i].name), /* keep_slashes= */ false);
        buf_add_char(&text, '=');
        s3_encode(&text, sorted[i].value, /* keep_slashes= */ false);
    }
    require(!text.overflow); /* keys and ids are bounded where they come in */
    return str_dup(arena, buf_str(&text));
}

/* "host;range;x-amz-date" */
static struct str signed_names(struct arena *arena, const struct s3_pair *headers, size_t n)
{
    auto_buf names = BUF_INIT(QUERY_BYTES_MAX);
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_add_char(&names, ';');
        buf_add_str(&names, str_from(headers[i].name));
    }
    return str_dup(arena, buf_str(&names));
}

static void canonical_hash(const struct s3_signing *signing, struct str query, struct str names,
                           const struct s3_pair *headers, size_t n_headers,
                           char ret[S3_HASH_TEXT_BYTES])
{
    auto_buf text = BUF_INIT(CANONICAL_BYTES_MAX);
    buf_printf(&text, "%s\n", signing->method);
    buf_add_str(&text, signing->path);
    buf_add_char(&text, '\n');
    buf_add_str(&text, query);
    buf_add_char(&text, '\n');
    for (size_t i = 0; i < n_headers; i++) {
        buf_printf(&text, "%s:", headers[i].name);
        buf_add_str(&text, str_trim(headers[i].value));
        buf_add_char(&text, '\n');
    }
    buf_add_char(&text, '\n');
    buf_add_str(&text, names);
    buf_add_char(&text, '\n');
    buf_add_str(&text, signing->payload);
    require(!text.overflow);
    s3_hash_text(buf_str(&text), ret);
}

/* ---- The signature ---- */

static void sign(const uint8_t *key, size_t n_key, struct str text, uint8_t ret[SHA256_DIGEST_SIZE])
{
    struct hmac_sha256_ctx hmac;
    hmac_sha256_set_key(&hmac, n_key, key);
    hmac_sha256_update(&hmac, text.n, (const uint8_t *)text.p);
    hmac_sha256_digest(&hmac, SHA256_DIGEST_SIZE, ret);
    explicit_bzero(&hmac, sizeof(hmac));
}

static void derive_key(const struct s3_signing *signing, struct str day,
                       uint8_t ret[SHA256_DIGEST_SIZE])
{
    auto_buf secret = BUF_INIT(4096);
    buf_add_str(&secret, STR("AWS4"));
    buf_add_str(&secret, str_from(signing->keys->secret));
    sign((const uint8_t *)secret.p, secret.n, day, ret);
    explicit_bzero(secret.p, secret.n);
    sign(ret, SHA256_DIGEST_SIZE, str_from(signing->region), ret);
    sign(ret, SHA256_DIGEST_SIZE, str_from(signing->service), ret);
    sign(ret, SHA256_DIGEST_SIZE, STR("aws4_request"), ret);
}

/* "20261124/us-east-1/s3/aws4_request" */
static struct str scope(struct arena *arena, const struct s3_signing *signing)
{
    char stamp[S3_STAMP_BYTES];
    s3_stamp(signing->now, stamp);
    return str_printf(arena, "%.8s/%s/%s/aws4_request", stamp, signing->region, signing->service);
}

static void signature(struct arena *arena, const struct s3_signing *signing, const char *canonical,
                      char ret[S3_HASH_TEXT_BYTES])
{
    char stamp[S3_STAMP_BYTES];
    uint8_t key[SHA256_DIGEST_SIZE];
    uint8_t digest[SHA256_DIGEST_SIZE];
    s3_stamp(signing->now, stamp);
    struct str text =
        str_printf(arena, ALGORITHM "\n%s\n%s\n%s", stamp, scope(arena, signing).p, canonical);
    derive_key(signing, (struct str){stamp, 8}, key);
    sign(key, sizeof(key), text, digest);
    explicit_bzero(key, sizeof(key));
    s3_digest_text(digest, ret);
}

struct str s3_authorization(struct arena *arena, const struct s3_signing *signing)
{
    struct s3_pair headers[S3_SIGNED_MAX];
    require(signing->n_headers < S3_SIGNED_MAX);
    size_t n = sort(signing->headers, signing->n_headers, headers);
    headers[n++] = (struct s3_pair){"host", signing->host};
    qsort(headers, n, sizeof(*headers), by_name);

    struct str names = signed_names(arena, headers, n);
    struct str query = s3_query(arena, signing->query, signing->n_query);
    char canonical[S3_HASH_TEXT_BYTES];
    char text[S3_HASH_TEXT_BYTES];
    canonical_hash(signing, query, names, headers, n, canonical);
    signature(arena, signing, canonical, text);
    return str_printf(arena, ALGORITHM " Credential=%s/%s,SignedHeaders=%s,Signature=%s",
                      signing->keys->access, scope(arena, signing).p, names.p, text);
}

struct str s3_presigned_query(struct arena *arena, const struct s3_signing *signing,
                              uint64_t ttl_seconds)
{
    char stamp[S3_STAMP_BYTES];
    s3_stamp(signing->now, stamp);
    struct s3_pair query[S3_SIGNED_MAX];
    size_t n = sort(signing->query, signing->n_query, query);
    require(n + 6 <= S3_SIGNED_MAX);
    query[n++] = (struct s3_pair){"X-Amz-Algorithm", STR(ALGORITHM)};
    query[n++] =
        (struct s3_pair){"X-Amz-Credential", str_printf(arena, "%s/%s", signing->keys->access,
                                                        scope(arena, signing).p)};
    query[n++] = (struct s3_pair){"X-Amz-Date", str_from(stamp)};
    query[n++] = (struct s3_pair){"X-Amz-Expires",
                                  str_printf(arena, "%llu", (unsigned long long)ttl_seconds)};
    query[n++] = (struct s3_pair){"X-Amz-SignedHeaders", STR("host")};
    if (signing->keys->token != NULL)
        query[n++] = (struct s3_pair){"X-Amz-Security-Token", str_from(signing->keys->token)};

    const struct s3_pair host = {"host", signing->host};
    struct str text = s3_query(arena, query, n);
    char canonical[S3_HASH_TEXT_BYTES];
    char signed_text[S3_HASH_TEXT_BYTES];
    canonical_hash(signing, text, STR("host"), &host, 1, canonical);
    signature(arena, signing, canonical, signed_text);
    return str_printf(arena, "%s&X-Amz-Signature=%s", text.p, signed_text);
}
