/* Where keys come from when they are not configured, as AWS's own clients look for them: "AWS SDKs
 * and Tools Reference Guide", standardized credential providers. */
#include "s3/s3_int.h"

#include <fcntl.h>
#include <jansson.h>

#define KEY_BYTES_MAX 1024
#define TOKEN_BYTES_MAX 16384
#define ANSWER_BYTES_MAX ((size_t)256 * 1024)
#define WITHIN_US (10 * CLOCK_SECOND_US)
#define INSTANCE_URL "http://169.254.169.254"
#define INSTANCE_URL_6 "http://[fd00:ec2::254]"
#define CONTAINER_URL "http://169.254.170.2"
#define INSTANCE_TOKEN_SECONDS "21600"

/* ---- What the environment says ---- */

/* static until the environment changes; NULL where it is empty */
static const char *variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

static char *dup_or_null(const char *text)
{
    return text != NULL ? mem_strdup(text) : NULL;
}

static char *join(const char *a, const char *b)
{
    auto_buf text = BUF_INIT(8192);
    buf_add_str(&text, str_from(a));
    buf_add_str(&text, str_from(b));
    return TAKE(text.p);
}

static char *without_slash(const char *url)
{
    char *copy = mem_strdup(url);
    size_t n = strlen(copy);
    if (n > 0 && copy[n - 1] == '/')
        copy[n - 1] = '\0';
    return copy;
}

static void web_identity_init(struct s3_places *places, const char *region)
{
    const char *url = variable("AWS_ENDPOINT_URL_STS");
    auto_buf regional = BUF_INIT(512);
    buf_printf(&regional, "https://sts.%s.amazonaws.com%s", region,
               strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
    places->url = without_slash(url != NULL ? url : regional.p);
    places->token_file = mem_strdup(variable("AWS_WEB_IDENTITY_TOKEN_FILE"));
    places->role = mem_strdup(variable("AWS_ROLE_ARN"));
    const char *session = variable("AWS_ROLE_SESSION_NAME");
    places->session = mem_strdup(session != NULL ? session : "holdfast");
}

/* A token is sent there: over TLS, or to this machine and its agents. */
static bool may_be_asked(struct str url)
{
    static const char *const hosts[] = {
        "127.",           "localhost:",      "localhost/",      "[::1]",         "169.254.170.2:",
        "169.254.170.2/", "169.254.170.23:", "169.254.170.23/", "[fd00:ec2::23]"};
    if (str_starts(url, STR("https://")))
        return true;
    if (!str_starts(url, STR("http://")))
        return false;
    url = str_from_at(url, strlen("http://"));
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++)
        if (str_starts(url, str_from(hosts[i])))
            return true;
    return false;
}

static int container_init(struct s3_places *places, struct err *err)
{
    const char *relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    if (relative != NULL && relative[0] != '/')
        return err_set(err, ERR_INVALID,
                       "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI \"%.100s\" does not begin with /",
                       relative);
    if (relative == NULL && !may_be_asked(str_from(full)))
        return err_set(err, ERR_INVALID,
                       "AWS_CONTAINER_CREDENTIALS_FULL_URI \"%.100s\" is neither https:// nor on "
                       "this machine",
                       full);
    places->url = relative != NULL ? join(CONTAINER_URL, relative) : mem_strdup(full);
    places->token_file = dup_or_null(variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"));
    places->authorization = dup_or_null(variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"));
    return 0;
}

static void instance_init(struct s3_places *places)
{
    const char *url = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    const char *disabled = variable("AWS_EC2_METADATA_DISABLED");
    if (url == NULL)
        url = mode != NULL && strcasecmp(mode, "IPv6") == 0 ? INSTANCE_URL_6 : INSTANCE_URL;
    places->url = without_slash(url);
    places->disabled = disabled != NULL && strcasecmp(disabled, "true") == 0;
}

int s3_places_init(struct s3_places *places, const char *region, enum s3_source_kind *ret_kind,
                   struct err *err)
{
    *places = (struct s3_places){0};
    const char *token_file = variable("AWS_WEB_IDENTITY_TOKEN_FILE");
    if (token_file != NULL && variable("AWS_ROLE_ARN") == NULL)
        return err_set(err, ERR_INVALID,
                       "AWS_WEB_IDENTITY_TOKEN_FILE is set, and AWS_ROLE_ARN is not");
    if (token_file != NULL) {
        web_identity_init(places, region);
        *ret_kind = S3_SOURCE_WEB_IDENTITY;
    } else if (variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") != NULL ||
               variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") != NULL) {
        if (container_init(places, err) < 0)
            return -1;
        *ret_kind = S3_SOURCE_CONTAINER;
    } else {
        instance_init(places);
        *ret_kind = S3_SOURCE_INSTANCE;
    }
    return 0;
}

void s3_places_done(struct s3_places *places)
{
    free(places->url);
    free(places->token_file);
    free(places->role);
    free(places->session);
    if (places->authorization != NULL)
        explicit_bzero(places->authorization, strlen(places->authorization));
    free(places->authorization);
    *places = (struct s3_places){0};
}

/* ---- Keys out of answers ---- */

static void secret_free(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void s3_keys_free(struct s3_keys *keys)
{
    if (keys == NULL)
        return;
    secret_free(keys->access);
    secret_free(keys->secret);
    secret_free(keys->token);
    free(keys);
}

/* Keys go into headers and URLs: printable ASCII without spaces. NULL: they are not. */
static char *key_dup(struct str text, size_t max)
{
    if (text.n == 0 || text.n > max)
        return NULL;
    for (size_t i = 0; i < text.n; i++)
        if (text.p[i] <= ' ' || text.p[i] > '~')
            return NULL;
    char *copy = mem_alloc(text.n + 1);
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';
    return copy;
}

struct raw_keys {
    struct str access;
    struct str secret;
    struct str token;
    struct str expires;
};

static int keys_make(const struct raw_keys *raw, const char *from, struct s3_keys **ret,
                     struct err *err)
{
    struct s3_keys *keys = mem_zalloc(sizeof(*keys));
    keys->access = key_dup(raw->access, KEY_BYTES_MAX);
    keys->secret = key_dup(raw->secret, KEY_BYTES_MAX);
    keys->token = key_dup(raw->token, TOKEN_BYTES_MAX);
    if (keys->access != NULL && keys->secret != NULL && keys->token != NULL &&
        s3_time_parse(raw->expires, &keys->expires)) {
        *ret = keys;
        return 0;
    }
    s3_keys_free(keys);
    (void)err_set(err, ERR_IO, "no credentials for the object store");
    return err_why(err, "%s answered no usable credentials", from);
}

static struct str json_text(const json_t *object, const char *name)
{
    const json_t *text = json_object_get(object, name);
    return (struct str){json_string_value(text), json_string_length(text)};
}

/* {"AccessKeyId": …, "SecretAccessKey": …, "Token": …, "Expiration": …} */
static int keys_of_json(struct str body, const char *from, struct s3_keys **ret, struct err *err)
{
    json_error_t where;
    json_auto_t *root = json_loadb(body.p, body.n, JSON_REJECT_DUPLICATES, &where);
    const struct raw_keys raw = {json_text(root, "AccessKeyId"), json_text(root, "SecretAccessKey"),
                                 json_text(root, "Token"), json_text(root, "Expiration")};
    return keys_make(&raw, from, ret, err);
}

struct sts {
    struct arena *arena;
    struct raw_keys raw;
};

static int sts_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)err;
    struct sts *sts = context;
    struct str name = STR("AssumeRoleWithWebIdentityResponse/AssumeRoleWithWebIdentityResult/"
                          "Credentials/");
    if (!str_starts(path, name))
        return 0;
    name = str_from_at(path, name.n);
    struct str copy = str_dup(sts->arena, text);
    if (str_eq(name, STR("AccessKeyId")))
        sts->raw.access = copy;
    else if (str_eq(name, STR("SecretAccessKey")))
        sts->raw.secret = copy;
    else if (str_eq(name, STR("SessionToken")))
        sts->raw.token = copy;
    else if (str_eq(name, STR("Expiration")))
        sts->raw.expires = copy;
    return 0;
}

/* ---- Asking for them ---- */

/* Fails with what the service said when the answer is not 200. */
static int ask(struct call *call, struct fetch *fetch, struct fetch_request *request,
               const char *whom, struct str *ret)
{
    struct fetch_answer answer;
    struct s3_error error = {0};
    request->within_us = WITHIN_US;
    request->answer_bytes_max = ANSWER_BYTES_MAX;
    if (fetch_perform(call, fetch, request, &answer) < 0) {
        char why[sizeof(call->err.why)];
        (void)snprintf(why, sizeof(why), "%s", call->err.why);
        (void)err_set(&call->err, ERR_BUSY, "no credentials for the object store");
        return err_why(&call->err, "%s does not answer: %s", whom, why);
    }
    if (answer.status == 200) {
        *ret = answer.body;
        return 0;
    }
    bool passing = s3_is_passing(answer.status);
    (void)s3_error_parse(answer.body, &error);
    (void)err_set(&call->err, passing ? ERR_BUSY : ERR_DENIED,
                  "no credentials for the object store");
    return err_why(&call->err, "%s answered status %u%s%s%s%s", whom, answer.status,
                   error.code[0] != '\0' ? " " : "", error.code,
                   error.message[0] != '\0' ? ", " : "", error.message);
}

static int read_token(struct call *call, const char *path, struct str *ret)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    char *text = arena_alloc(&call->arena, TOKEN_BYTES_MAX + 1);
    size_t n = 0;
    ssize_t got = fd >= 0 ? 1 : -1;
    while (got > 0 && n <= TOKEN_BYTES_MAX) {
        got = read(fd, text + n, TOKEN_BYTES_MAX + 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    if (got < 0)
        return err_sys(&call->err, "could not read the token file \"%s\"", path);
    while (n > 0 && text[n - 1] <= ' ')
        n--;
    if (n == 0 || n > TOKEN_BYTES_MAX) {
        (void)err_set(&call->err, ERR_IO, "no credentials for the object store");
        return err_why(&call->err, "the token file \"%s\" is %s", path,
                       n == 0 ? "empty" : "too large");
    }
    *ret = (struct str){text, n};
    return 0;
}

/* STS API reference, AssumeRoleWithWebIdentity: not signed, the token is the proof. */
static int obtain_web_identity(struct call *call, struct fetch *fetch,
                               const struct s3_places *places, struct s3_keys **ret)
{
    struct str token;
    if (read_token(call, places->token_file, &token) < 0)
        return -1;
    const struct s3_pair form[] = {
        {"Action", STR("AssumeRoleWithWebIdentity")},
        {"Version", STR("2011-06-15")},
        {"RoleArn", str_from(places->role)},
        {"RoleSessionName", str_from(places->session)},
        {"WebIdentityToken", token},
    };
    struct fetch_request request = {
        .method = "POST",
        .url = str_printf(&call->arena, "%s/", places->url).p,
        .headers = {{"Content-Type", "application/x-www-form-urlencoded"}},
        .n_headers = 1,
        .body = s3_query(&call->arena, form, ARRAY_SIZE(form)),
    };
    struct str body;
    if (ask(call, fetch, &request, "STS", &body) < 0)
        return -1;
    struct sts sts = {.arena = &call->arena};
    if (s3_xml_parse(body, sts_element, &sts, &call->err) < 0)
        return -1;
    return keys_make(&sts.raw, "STS", ret, &call->err);
}

/* Container credential provider: ECS, and EKS Pod Identity with its token file. */
static int obtain_container(struct call *call, struct fetch *fetch, const struct s3_places *places,
                            struct s3_keys **ret)
{
    struct str token = str_from(places->authorization);
    if (places->token_file != NULL && read_token(call, places->token_file, &token) < 0)
        return -1;
    struct fetch_request request = {.method = "GET", .url = places->url};
    if (token.n > 0)
        request.headers[request.n_headers++] =
            (struct fetch_header){"Authorization", str_z(&call->arena, token)};
    struct str body;
    if (ask(call, fetch, &request, "the container's credential service", &body) < 0)
        return -1;
    return keys_of_json(body, "the container's credential service", ret, &call->err);
}

/* IMDSv2: a session's token first, then the role's name, then its credentials. */
static int obtain_instance(struct call *call, struct fetch *fetch, const struct s3_places *places,
                           struct s3_keys **ret)
{
    static const char whom[] = "the instance's metadata service";
    if (places->disabled) {
        (void)err_set(&call->err, ERR_DENIED, "no credentials for the object store");
        return err_why(&call->err, "none are configured, none are in the environment, and "
                                   "AWS_EC2_METADATA_DISABLED is set");
    }
    struct str text;
    struct fetch_request request = {
        .method = "PUT",
        .url = str_printf(&call->arena, "%s/latest/api/token", places->url).p,
        .headers = {{"X-aws-ec2-metadata-token-ttl-seconds", INSTANCE_TOKEN_SECONDS}},
        .n_headers = 1,
        .body = STR(""),
    };
    if (ask(call, fetch, &request, whom, &text) < 0)
        return err_why(&call->err, "set s3.access_key and s3.secret_key when this is no instance "
                                   "with a role");
    request = (struct fetch_request){
        .method = "GET",
        .headers = {{"X-aws-ec2-metadata-token", str_z(&call->arena, text)}},
        .n_headers = 1,
    };
    struct str path = STR("/latest/meta-data/iam/security-credentials/");
    request.url = str_printf(&call->arena, "%s%s", places->url, path.p).p;
    if (ask(call, fetch, &request, whom, &text) < 0)
        return -1;
    auto_buf role = BUF_INIT(4096);
    s3_encode(&role, str_cut(&text, '\n'), /* keep_slashes= */ false);
    request.url =
        str_printf(&call->arena, "%s%s" STR_FMT, places->url, path.p, STR_ARG(buf_str(&role))).p;
    if (ask(call, fetch, &request, whom, &text) < 0)
        return -1;
    return keys_of_json(text, whom, ret, &call->err);
}

int s3_obtain(struct call *call, struct fetch *fetch, enum s3_source_kind kind,
              const struct s3_places *places, struct s3_keys **ret)
{
    switch (kind) {
    case S3_SOURCE_WEB_IDENTITY:
        return obtain_web_identity(call, fetch, places, ret);
    case S3_SOURCE_CONTAINER:
        return obtain_container(call, fetch, places, ret);
    case S3_SOURCE_INSTANCE:
        return obtain_instance(call, fetch, places, ret);
    case S3_SOURCE_STATIC:
        break;
    }
    return err_set(&call->err, ERR_INTERNAL, "these credentials are not renewed");
}
