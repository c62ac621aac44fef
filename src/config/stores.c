/* Where metadata and blobs are kept: the forms of those settings, and which go together. */
#include "config/config_int.h"

#define BUCKET_BYTES_MIN 3
#define BUCKET_BYTES_MAX 63
#define PREFIX_BYTES_MAX 200 /* S3's keys have at most 1024 */
#define HEADER_BYTES_MAX 512 /* of what is sent in a header */

/* Each returns NULL, or what is wrong and what to write instead. static */
typedef const char *check_fn(struct str text);

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}
static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
static bool is_hex(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* Only letters, digits and what is in `others`. */
static bool consists_of(struct str text, const char *others)
{
    for (size_t i = 0; i < text.n; i++)
        if (!is_letter(text.p[i]) && !is_digit(text.p[i]) &&
            (text.p[i] == '\0' || strchr(others, text.p[i]) == NULL))
            return false;
    return true;
}

/* Visible ASCII, and nothing of what is in `excluded`. */
static bool is_visible_without(struct str text, const char *excluded)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] <= ' ' || text.p[i] > '~' || strchr(excluded, text.p[i]) != NULL)
            return false;
    return true;
}

/* Takes `prefix` away from the front. */
static bool eat(struct str *text, struct str prefix)
{
    if (!str_starts(*text, prefix))
        return false;
    *text = str_from_at(*text, prefix.n);
    return true;
}

static bool is_port(struct str text)
{
    uint64_t port;
    return str_eat_u64(&text, UINT16_MAX, &port) && text.n == 0 && port > 0;
}

/* "HOST", "HOST:PORT", "[IPV6]:PORT". `host_others`: characters of a host besides letters and
 * digits. */
static bool is_host_and_port(struct str text, const char *host_others)
{
    if (eat(&text, STR("["))) {
        bool closed = str_find(text, ']') < text.n;
        struct str address = str_cut(&text, ']');
        return closed && address.n > 0 && consists_of(address, ":.") &&
               (text.n == 0 || (eat(&text, STR(":")) && is_port(text)));
    }
    bool has_port = str_find(text, ':') < text.n;
    return consists_of(str_cut(&text, ':'), host_others) && (!has_port || is_port(text));
}

/* ---- metadata ---- */

/* Each '%' begins two hexadecimal digits, other than those of a NUL. */
static bool is_percent_encoded(struct str text)
{
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] == '%' &&
            (i + 2 >= text.n || !is_hex(text.p[i + 1]) || !is_hex(text.p[i + 2]) ||
             (text.p[i + 1] == '0' && text.p[i + 2] == '0')))
            return false;
    return true;
}

/* "sslmode=verify-full&application_name=x" */
static bool are_parameters(struct str query)
{
    while (query.n > 0) {
        struct str value = str_cut(&query, '&');
        bool has_value = str_find(value, '=') < value.n;
        struct str name = str_cut(&value, '=');
        if (!has_value || name.n == 0 || !consists_of(name, "_") || str_find(value, '=') < value.n)
            return false;
    }
    return true;
}

/* What libpq would misread, or complain about by repeating a part of it that may be secret.
 * PostgreSQL 15, "Connection URIs". */
static const char *database_check(struct str url)
{
    if (!eat(&url, STR("postgres://")) && !eat(&url, STR("postgresql://")))
        return "write postgres://USER:PASSWORD@HOST:PORT/NAME";
    if (!is_visible_without(url, "#") || !is_percent_encoded(url))
        return "spaces, '#', '%' and letters beyond ASCII are written percent-encoded, as %20, %23 "
               "and %25";
    size_t at = str_find(url, '@');
    size_t authority =
        str_find(url, '/') < str_find(url, '?') ? str_find(url, '/') : str_find(url, '?');
    if (at < url.n) {
        if (at > authority || str_find(str_from_at(url, at + 1), '@') < url.n - at - 1)
            return "'@', '/' and '?' in a user, a password or a parameter are written "
                   "percent-encoded, as %40, %2F and %3F";
        url = str_from_at(url, at + 1);
        authority -= at + 1;
    }
    struct str hosts = str_first(url, authority);
    while (hosts.n > 0) {
        if (!is_host_and_port(str_cut(&hosts, ','), "-._%"))
            return "behind the '@' stands HOST or HOST:PORT, as db.example.com:5432";
    }
    (void)str_cut(&url, '?');
    if (!are_parameters(url))
        return "behind the '?' stand NAME=VALUE, with '&' between them";
    return NULL;
}

/* ---- blobs ---- */

/* "General purpose bucket naming rules" of the Amazon S3 User Guide. */
static const char *bucket_check(struct str bucket)
{
    static const char form[] =
        "a bucket's name has 3 to 63 lower-case letters, digits, '.' and '-', and begins and ends "
        "with a letter or a digit";
    if (bucket.n < BUCKET_BYTES_MIN || bucket.n > BUCKET_BYTES_MAX || !consists_of(bucket, "-."))
        return form;
    size_t dots = 0;
    size_t letters = 0;
    for (size_t i = 0; i < bucket.n; i++) {
        char c = bucket.p[i];
        bool at_end = i == 0 || i + 1 == bucket.n;
        if ((c >= 'A' && c <= 'Z') || (at_end && !is_letter(c) && !is_digit(c)))
            return form;
        if (c == '.' && bucket.p[i + 1] == '.')
            return "a bucket's name has no two '.' beside each other";
        dots += c == '.';
        letters += is_letter(c) || c == '-';
    }
    if (dots == 3 && letters == 0)
        return "a bucket's name is not an IP address";
    return NULL;
}

static const char *prefix_check(struct str prefix)
{
    if (prefix.n > PREFIX_BYTES_MAX || !consists_of(prefix, "-._/"))
        return "a prefix has at most 200 letters, digits, '.', '-', '_' and '/'";
    while (prefix.n > 0) {
        bool last = str_find(prefix, '/') == prefix.n;
        struct str part = str_cut(&prefix, '/');
        if (part.n == 0 || (prefix.n == 0 && !last))
            return "a prefix has no '/' at its ends, nor two beside each other";
        if (str_eq(part, STR(".")) || str_eq(part, STR("..")))
            return "a prefix has no parts \".\" and \"..\"";
    }
    return NULL;
}

static const char *location_parse(struct str text, struct str *ret_bucket, struct str *ret_prefix)
{
    if (!eat(&text, STR("s3://")))
        return "write s3://BUCKET or s3://BUCKET/PREFIX";
    bool has_prefix = str_find(text, '/') < text.n;
    struct str bucket = str_cut(&text, '/');
    const char *hint = bucket_check(bucket);
    if (hint == NULL && has_prefix && text.n == 0)
        hint = "leave the '/' at its end out";
    if (hint == NULL)
        hint = prefix_check(text);
    if (hint == NULL) {
        *ret_bucket = bucket;
        *ret_prefix = text;
    }
    return hint;
}

static const char *location_check(struct str text)
{
    struct str bucket;
    struct str prefix;
    return location_parse(text, &bucket, &prefix);
}

/* ---- s3, redirect ---- */

/* Takes "https://HOST:PORT" from the front. */
static const char *origin_eat(struct str *url)
{
    if (!eat(url, STR("https://")) && !eat(url, STR("http://")))
        return "write https://HOST or https://HOST:PORT";
    if (str_find(*url, '@') < url->n)
        return "write it without user and password: s3.access_key and s3.secret_key are for them";
    if (str_find(*url, '?') < url->n || str_find(*url, '#') < url->n)
        return "write it without '?' and '#', and what stands behind them";
    struct str origin = str_first(*url, str_find(*url, '/'));
    if (origin.n == 0 || origin.p[0] == ':' || !is_host_and_port(origin, "-."))
        return "write https://HOST or https://HOST:PORT";
    *url = str_from_at(*url, origin.n);
    return NULL;
}

static const char *endpoint_check(struct str url)
{
    const char *hint = origin_eat(&url);
    if (hint == NULL && url.n > 0)
        hint = "write it without a path, as https://HOST:PORT; the bucket is part of blobs";
    return hint;
}

static const char *base_check(struct str url)
{
    const char *hint = origin_eat(&url);
    if (hint == NULL && (!is_visible_without(url, "\"<>\\^`{|}") || !is_percent_encoded(url)))
        hint = "other characters are written percent-encoded in a path";
    if (hint == NULL && str_ends(url, STR("/")))
        hint = "leave the '/' at its end out";
    return hint;
}

static const char *region_check(struct str text)
{
    return text.n <= 64 && consists_of(text, "-_.")
               ? NULL
               : "it has at most 64 letters, digits, '-', '_' and '.', as eu-central-1";
}

/* Both stand in headers: the access key before "/REGION/s3/aws4_request". */
static const char *access_key_check(struct str text)
{
    return text.n <= HEADER_BYTES_MAX && is_visible_without(text, "/,")
               ? NULL
               : "it has at most 512 visible ASCII characters, and no '/' and ','";
}
static const char *encryption_key_check(struct str text)
{
    return text.n <= HEADER_BYTES_MAX && is_visible_without(text, "")
               ? NULL
               : "it has at most 512 visible ASCII characters";
}

static const struct form {
    enum setting_id id;
    const char *what;
    check_fn *check;
} forms[] = {
    {SETTING_metadata, "the URL of a database", database_check},
    {SETTING_blobs, "a blob store", location_check},
    {SETTING_s3_endpoint, "the URL of an object store", endpoint_check},
    {SETTING_s3_region, "a region", region_check},
    {SETTING_s3_access_key, "an access key", access_key_check},
    {SETTING_s3_encryption_key, "a key's name", encryption_key_check},
    {SETTING_redirect_url, "the base of URLs", base_check},
};

int config_check_form(struct config *config, const struct setting *setting, struct str text,
                      struct err *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(forms) && text.n > 0; i++) {
        const char *hint = setting == &settings[forms[i].id] ? forms[i].check(text) : NULL;
        if (hint == NULL)
            continue;
        if (setting_is_hidden(setting))
            return err_set(err, ERR_INVALID, "is not %s: %s", forms[i].what, hint);
        return err_set(err, ERR_INVALID, "%s is not %s: %s", config_quote(&config->arena, text),
                       forms[i].what, hint);
    }
    return 0;
}

/* ---- What goes together ---- */

/* Whether it differs from its default: a file that names every setting gives none by that. */
static bool is_changed(const struct config *config, const struct setting *setting)
{
    auto_buf value = BUF_INIT(6 * TEXT_BYTES_MAX + 16);
    setting_print(config, setting, &value);
    struct str fallback = str_from(setting->fallback);
    return !str_eq(buf_str(&value), setting_is_text(setting) ? STR("\"\"") : fallback);
}

static void check_unused(struct loading *loading)
{
    for (size_t i = 0; i < SETTINGS; i++) {
        bool for_s3 = str_eq(setting_section(&settings[i]), STR("s3")) || i == SETTING_redirect_url;
        if (for_s3 && is_changed(&loading->config, &settings[i]))
            loading_complain(loading,
                             "%s: has no effect while blobs are files; set blobs to s3://BUCKET, "
                             "or leave this out",
                             loading->where[i].p);
    }
}

static void check_keys(struct loading *loading)
{
    const struct config *config = &loading->config;
    bool access = config->s3_access_key.n > 0;
    bool secret = config->s3_secret_key.n > 0 || config->s3_secret_key_file.n > 0;
    if (access && !secret)
        loading_complain(loading, "%s: needs s3.secret_key",
                         loading->where[SETTING_s3_access_key].p);
    if (secret && !access)
        loading_complain(loading, "%s: needs s3.access_key",
                         loading->where[SETTING_s3_secret_key].p);
    if (config->s3_encryption_key.n > 0 && config->s3_encryption != CONFIG_ENCRYPTION_KMS)
        loading_complain(loading,
                         "%s: has no effect while s3.encryption is not aws:kms; set it, or leave "
                         "s3.encryption_key out",
                         loading->where[SETTING_s3_encryption_key].p);
    if (config->s3_ca.n > 0 && str_starts(config->s3_endpoint, STR("http://")))
        loading_complain(loading, "%s: has no effect while s3.endpoint is an http:// URL",
                         loading->where[SETTING_s3_ca].p);
}

void config_check_stores(struct loading *loading)
{
    struct config *config = &loading->config;
    struct str bucket = {0};
    struct str prefix = {0};
    if (config->blobs.n > 0) {
        require(location_parse(config->blobs, &bucket, &prefix) == NULL); /* checked when set */
        check_keys(loading);
    } else {
        check_unused(loading);
    }
    config->blobs_bucket = str_dup(&config->arena, bucket);
    config->blobs_prefix =
        str_printf(&config->arena, STR_FMT "%s", STR_ARG(prefix), prefix.n > 0 ? "/" : "");
}

int config_s3_location(const struct config *config, struct str *ret_bucket, struct str *ret_prefix)
{
    if (config->blobs_bucket.n == 0)
        return -1;
    *ret_bucket = config->blobs_bucket;
    *ret_prefix = config->blobs_prefix;
    return 0;
}

const char *config_s3_encryption(const struct config *config)
{
    switch (config->s3_encryption) {
    case CONFIG_ENCRYPTION_NONE:
        return "";
    case CONFIG_ENCRYPTION_AES256:
        return "AES256";
    case CONFIG_ENCRYPTION_KMS:
        return "aws:kms";
    }
    return "";
}
