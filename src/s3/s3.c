/* The client: what the options mean, and where requests go. */
#include "s3/s3_int.h"

#define TEXT_BYTES_MAX 2048
#define PREFIX_BYTES_MAX 512
#define CONNECT_US_MAX (10 * CLOCK_SECOND_US)

/* ---- Checks ---- */

static bool has_only(struct str text, const char *allowed)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '\0' || strchr(allowed, text.p[i]) == NULL)
            return false;
    return true;
}

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* As a name in DNS when it becomes one; other stores allow more where it does not. */
static int check_bucket(struct str bucket, bool is_host, struct err *err)
{
    const char *allowed = is_host ? LOWER DIGITS ".-" : LOWER UPPER DIGITS ".-_";
    if (bucket.n < 3 || bucket.n > 63 || !has_only(bucket, allowed) || bucket.p[0] == '.' ||
        bucket.p[0] == '-')
        return err_set(err, ERR_INVALID,
                       "bucket \"" STR_FMT "\" does not have a name that the object store takes",
                       STR_ARG(str_first(bucket, 80)));
    return 0;
}

static int check_prefix(struct str prefix, struct err *err)
{
    bool shaped = prefix.n == 0 || (prefix.p[0] != '/' && prefix.p[prefix.n - 1] == '/');
    for (size_t i = 0; i < prefix.n; i++)
        if ((unsigned char)prefix.p[i] < ' ' || prefix.p[i] == 0x7f)
            shaped = false;
    if (!shaped || prefix.n > PREFIX_BYTES_MAX)
        return err_set(err, ERR_INVALID, "prefix \"" STR_FMT "\" in the bucket cannot be used",
                       STR_ARG(str_first(prefix, 80)));
    return 0;
}

static int check_encryption(const struct s3_options *options, struct err *err)
{
    struct str encryption = str_from(options->encryption);
    struct str key = str_from(options->encryption_key);
    bool kms = str_eq(encryption, STR("aws:kms"));
    if (encryption.n > 0 && !kms && !str_eq(encryption, STR("AES256")))
        return err_set(err, ERR_INVALID, "encryption \"" STR_FMT "\" is neither AES256 nor aws:kms",
                       STR_ARG(str_first(encryption, 40)));
    if (key.n > 0 && !kms)
        return err_set(err, ERR_INVALID, "a key is given, and the encryption is not aws:kms");
    if (key.n > 1024 || !has_only(key, LOWER UPPER DIGITS ":/_-.+=@"))
        return err_set(err, ERR_INVALID, "\"" STR_FMT "\" is not the id of a KMS key",
                       STR_ARG(str_first(key, 80)));
    return 0;
}

/* ---- URLs ---- */

struct parts {
    struct str scheme; /* "https://" */
    struct str host;   /* with its port, in brackets where it is an IPv6 address */
    struct str path;   /* without a '/' at its end */
};

static int split(const char *url, const char *what, struct parts *ret, struct err *err)
{
    struct str rest = str_from(url);
    struct parts parts = {.scheme = STR("https://")};
    if (!str_starts(rest, parts.scheme))
        parts.scheme = STR("http://");
    bool known = str_starts(rest, parts.scheme);
    rest = str_from_at(rest, parts.scheme.n);
    parts.host = str_first(rest, str_find(rest, '/'));
    parts.path = str_from_at(rest, parts.host.n);
    while (parts.path.n > 0 && parts.path.p[parts.path.n - 1] == '/')
        parts.path.n--;
    if (!known || parts.host.n == 0 || rest.n > TEXT_BYTES_MAX ||
        !has_only(parts.host, LOWER UPPER DIGITS ".-_:[]") ||
        !has_only(parts.path, LOWER UPPER DIGITS ".-_~%/"))
        return err_set(err, ERR_INVALID, "%s \"%.200s\" is not a URL such as https://HOST:PORT",
                       what, url);
    *ret = parts;
    return 0;
}

/* The Host header leaves the scheme's own port out. */
static struct str signed_host(const struct parts *parts)
{
    struct str host = parts->host;
    struct str port = str_eq(parts->scheme, STR("https://")) ? STR(":443") : STR(":80");
    return str_ends(host, port) ? str_first(host, host.n - port.n) : host;
}

static bool is_address(struct str host)
{
    return str_starts(host, STR("[")) || has_only(str_first(host, str_find(host, ':')), DIGITS ".");
}

static char *text(struct str a, struct str b, struct str c, struct str d)
{
    auto_buf all = BUF_INIT(4 * TEXT_BYTES_MAX);
    buf_add_str(&all, a);
    buf_add_str(&all, b);
    buf_add_str(&all, c);
    buf_add_str(&all, d);
    return TAKE(all.p);
}

static const struct str nothing = {"", 0};

static int base_init(struct s3_base *base, const char *endpoint, struct str bucket, bool is_host,
                     struct err *err)
{
    struct parts parts;
    if (split(endpoint, "the object store's endpoint", &parts, err) < 0)
        return -1;
    if (parts.path.n > 0)
        return err_set(err, ERR_INVALID, "the object store's endpoint \"%.200s\" has a path",
                       endpoint);
    if (is_host && is_address(parts.host))
        return err_set(err, ERR_INVALID,
                       "a bucket cannot be part of the address \"" STR_FMT
                       "\": use path addressing",
                       STR_ARG(parts.host));
    struct str before = is_host ? bucket : nothing;
    struct str dot = is_host ? STR(".") : nothing;
    base->url = text(parts.scheme, before, dot, parts.host);
    base->host = text(before, dot, signed_host(&parts), nothing);
    base->path = is_host ? mem_strdup("") : text(STR("/"), bucket, nothing, nothing);
    base->tls = str_eq(parts.scheme, STR("https://"));
    return 0;
}

/* Another name of the store when the bucket is in the path: the store sees this name. When the
 * bucket is in the host, a network in front of the bucket, which asks it under its own name. */
static int readers_init(struct s3 *s3, const char *public_url, bool is_host, struct err *err)
{
    struct parts parts;
    if (split(public_url, "the public URL of the object store", &parts, err) < 0)
        return -1;
    s3->readers.url = text(parts.scheme, parts.host, parts.path, nothing);
    s3->readers.host =
        is_host ? mem_strdup(s3->store.host) : text(signed_host(&parts), nothing, nothing, nothing);
    s3->readers.path = mem_strdup(s3->store.path);
    return 0;
}

/* ---- Beginning and end ---- */

static const char *region_of(const struct s3_options *options)
{
    const char *names[] = {"AWS_REGION", "AWS_DEFAULT_REGION"};
    if (options->region[0] != '\0')
        return options->region;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return value;
    }
    return "us-east-1";
}

static int place(struct s3 *s3, const struct s3_options *options, struct err *err)
{
    struct str bucket = str_from(options->bucket);
    struct str region = str_from(s3->region);
    bool on_aws = options->endpoint[0] == '\0';
    /* A certificate for *.s3.… does not cover a bucket with dots. */
    bool is_host =
        options->addressing == S3_ADDRESSING_HOST ||
        (options->addressing == S3_ADDRESSING_AUTO && on_aws && str_find(bucket, '.') == bucket.n);
    if (check_bucket(bucket, is_host || on_aws, err) < 0)
        return -1;
    struct str suffix =
        str_starts(region, STR("cn-")) ? STR(".amazonaws.com.cn") : STR(".amazonaws.com");
    auto_mem char *endpoint =
        on_aws ? text(STR("https://s3."), region, suffix, nothing) : mem_strdup(options->endpoint);
    if (base_init(&s3->store, endpoint, bucket, is_host, err) < 0)
        return -1;
    if (options->public_url[0] != '\0')
        return readers_init(s3, options->public_url, is_host, err);
    s3->readers.url = mem_strdup(s3->store.url);
    s3->readers.host = mem_strdup(s3->store.host);
    s3->readers.path = mem_strdup(s3->store.path);
    return 0;
}

static int connect_parts(struct s3 *s3, const struct s3_options *options, struct err *err)
{
    const struct s3_source_options source = {
        .access_key = options->access_key,
        .secret_key = options->secret_key,
        .region = s3->region,
        .patience_us = options->patience_us,
    };
    int64_t quarter = options->patience_us / 4;
    const struct fetch_options fetch = {
        .ca_file = options->ca_file[0] != '\0' ? options->ca_file : NULL,
        .user_agent = "holdfast/" HOLDFAST_VERSION,
        .connections = options->connections,
        .connect_us = quarter < CONNECT_US_MAX ? quarter : CONNECT_US_MAX,
        .silence_us = options->patience_us / 2, /* so that there is a second attempt */
    };
    if (s3_source_new(&source, &s3->source, err) < 0)
        return -1;
    return fetch_new(&fetch, &s3->fetch, err);
}

static int init(struct s3 *s3, const struct s3_options *options, struct err *err)
{
    s3->region = mem_strdup(region_of(options));
    struct str region = str_from(s3->region);
    if (region.n > 60 || !has_only(region, LOWER DIGITS "-"))
        return err_set(err, ERR_INVALID, "\"" STR_FMT "\" is not a region",
                       STR_ARG(str_first(region, 80)));
    if (check_prefix(str_from(options->prefix), err) < 0 || check_encryption(options, err) < 0 ||
        place(s3, options, err) < 0)
        return -1;
    s3->bucket = mem_strdup(options->bucket);
    s3->prefix = mem_strdup(options->prefix);
    s3->encryption = options->encryption[0] != '\0' ? mem_strdup(options->encryption) : NULL;
    s3->encryption_key = mem_strdup(options->encryption_key);
    s3->patience_us = options->patience_us;
    s3->give_up_us = INT64_MAX;
    s3->observe = options->observe;
    s3->observe_context = options->observe_context;
    return connect_parts(s3, options, err);
}

int s3_new(const struct s3_options *options, struct s3 **ret, struct err *err)
{
    struct s3_options given = *options;
    const char **texts[] = {&given.bucket,     &given.prefix,     &given.endpoint,
                            &given.region,     &given.ca_file,    &given.access_key,
                            &given.secret_key, &given.encryption, &given.encryption_key,
                            &given.public_url};
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (*texts[i] == NULL)
            *texts[i] = "";
    struct s3 *s3 = mem_zalloc(sizeof(*s3));
    if (init(s3, &given, err) < 0) {
        s3_free(s3);
        return -1;
    }
    *ret = s3;
    return 0;
}

void s3_give_up(struct s3 *s3, struct mono_us at)
{
    s3->give_up_us = at.us;
    s3_source_give_up(s3->source, at);
    fetch_give_up(s3->fetch, at);
}

static void base_done(struct s3_base *base)
{
    free(base->url);
    free(base->host);
    free(base->path);
}

void s3_free(struct s3 *s3)
{
    if (s3 == NULL)
        return;
    fetch_free(s3->fetch);
    s3_source_free(s3->source);
    base_done(&s3->store);
    base_done(&s3->readers);
    free(s3->bucket);
    free(s3->prefix);
    free(s3->region);
    free(s3->encryption);
    free(s3->encryption_key);
    free(s3);
}

/* ---- What requests need of it ---- */

struct wall_us s3_now(const struct s3 *s3)
{
    return (struct wall_us){clock_wall().us + s3->skew_us};
}

struct str s3_path(struct arena *arena, const struct s3 *s3, const struct s3_base *base,
                   const char *key)
{
    auto_buf path = BUF_INIT(16384);
    buf_add_str(&path, str_from(base->path));
    if (key != NULL || path.n == 0)
        buf_add_char(&path, '/');
    if (key != NULL) {
        s3_encode(&path, str_from(s3->prefix), /* keep_slashes= */ true);
        s3_encode(&path, str_from(key), /* keep_slashes= */ true);
    }
    return str_dup(arena, buf_str(&path));
}

void s3_observe(const struct s3 *s3, const char *operation, unsigned status, int64_t us)
{
    if (s3->observe != NULL)
        s3->observe(s3->observe_context, operation, status, us);
}
