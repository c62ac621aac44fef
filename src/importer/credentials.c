#include "importer/live_int.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/base64.h>

#define SECRET_BYTES_MAX ((size_t)16 * 1024)
#define AUTH_BYTES_MAX ((size_t)8 * 1024)
#define DOCKER_CONFIG_BYTES_MAX ((size_t)1024 * 1024)
#define DOCKER_HUB "docker.io"

static void secret_free(char *text)
{
    if (text != NULL)
        explicit_bzero(text, strlen(text));
    free(text);
}

void credentials_done(struct credentials *credentials)
{
    secret_free(credentials->username);
    secret_free(credentials->password);
    secret_free(credentials->identity);
    *credentials = (struct credentials){0};
}

static char *copy(struct str text)
{
    char *z = mem_zalloc(text.n + 1);
    if (text.n > 0)
        memcpy(z, text.p, text.n);
    return z;
}

struct str credentials_basic(struct arena *arena, const struct credentials *credentials)
{
    struct str both = str_printf(arena, "%s:%s", credentials->username, credentials->password);
    size_t n = BASE64_ENCODE_RAW_LENGTH(both.n);
    char *text = arena_zalloc(arena, n + 1);
    base64_encode_raw(text, both.n, (const uint8_t *)both.p);
    return str_printf(arena, "Basic %s", text);
}

/* ---- A docker config.json ---- */

/* Keys of `auths` are hosts, or URLs as older clients wrote them. */
static bool names_host(struct str key, struct str host)
{
    bool is_hub = str_eq(host, STR(DOCKER_HUB)) || str_ends(host, STR("." DOCKER_HUB));
    if (str_starts(key, STR("https://")))
        key = str_from_at(key, strlen("https://"));
    else if (str_starts(key, STR("http://")))
        key = str_from_at(key, strlen("http://"));
    struct str key_host = str_cut(&key, '/');
    return str_eq_nocase(key_host, host) ||
           (is_hub && str_eq_nocase(key_host, STR("index." DOCKER_HUB)));
}

/* `auth`: base 64 of "user:password". */
static int read_auth(struct str auth, struct credentials *ret, struct err *err)
{
    struct base64_decode_ctx decoder;
    char plain[BASE64_DECODE_LENGTH(AUTH_BYTES_MAX)];
    size_t n = sizeof(plain);
    base64_decode_init(&decoder);
    bool good = base64_decode_update(&decoder, &n, (uint8_t *)plain, auth.n, auth.p) == 1 &&
                base64_decode_final(&decoder) == 1;
    struct str password = {plain, good ? n : 0};
    struct str username = str_cut(&password, ':');
    good = good && username.n < n && memchr(plain, '\0', n) == NULL;
    if (good) {
        ret->username = copy(username);
        ret->password = copy(password);
    }
    explicit_bzero(plain, sizeof(plain));
    if (!good)
        return err_set(err, ERR_INVALID,
                       "the docker configuration's \"auth\" is not USER:PASSWORD in base 64");
    return 0;
}

static int read_entry(const json_t *entry, struct credentials *ret, struct err *err)
{
    struct str identity = source_json_text(entry, "identitytoken");
    struct str username = source_json_text(entry, "username");
    struct str auth = source_json_text(entry, "auth");
    if (identity.n > 0)
        ret->identity = copy(identity);
    if (username.n > 0) {
        ret->username = copy(username);
        ret->password = copy(source_json_text(entry, "password"));
        return 0;
    }
    if (auth.n == 0 || auth.n > AUTH_BYTES_MAX)
        return identity.n > 0
                   ? 0
                   : err_set(err, ERR_INVALID,
                             "the docker configuration has no password for the registry; "
                             "credential helpers are not asked: say who you are by flags");
    return read_auth(auth, ret, err);
}

int credentials_from_docker(struct str json, struct str host, struct credentials *ret,
                            struct err *err)
{
    json_auto_t *config = NULL;
    if (json.n > DOCKER_CONFIG_BYTES_MAX)
        return err_set(err, ERR_INVALID, "the docker configuration has more than %zu bytes",
                       DOCKER_CONFIG_BYTES_MAX);
    if (source_json_read(json, "the docker configuration", &config, err) < 0)
        return -1;
    const char *key;
    json_t *entry;
    json_object_foreach(json_object_get(config, "auths"), key, entry)
    {
        if (!names_host(str_from(key), host))
            continue;
        struct credentials found = {0};
        if (read_entry(entry, &found, err) < 0) {
            credentials_done(&found);
            return -1;
        }
        *ret = found;
        return 0;
    }
    return 0;
}

/* ---- Files ---- */

/* These are the operator's own paths: links and pipes are welcome. ret: owned, secret. */
static int read_own_file(const char *path, size_t max, struct str *ret, struct err *err)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    auto_mem char *text = mem_zalloc(max + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (fd >= 0 && n <= max && got > 0) {
        got = read(fd, text + n, max + 1 - n);
        n += got > 0 ? (size_t)got : 0;
    }
    if (fd < 0 || got < 0) {
        int number = errno;
        return err_set(err, number == ENOENT ? ERR_NOT_FOUND : ERR_IO, "could not read \"%s\": %s",
                       path, strerrordesc_np(number));
    }
    if (n > max)
        return err_set(err, ERR_INVALID, "\"%s\" has more than %zu bytes", path, max);
    *ret = (struct str){TAKE(text), n};
    return 0;
}

static void own_file_free(struct str *text)
{
    if (text->p == NULL)
        return;
    char *p = (char *)(uintptr_t)text->p; /* owned by read_own_file's caller */
    explicit_bzero(p, text->n);
    free(p);
}

static int read_password(const struct importer_origin *origin, struct credentials *ret,
                         struct err *err)
{
    __attribute__((cleanup(own_file_free))) struct str text = {0};
    if (origin->password_file == NULL) {
        ret->password = mem_strdup(origin->password != NULL ? origin->password : "");
        return 0;
    }
    if (read_own_file(origin->password_file, SECRET_BYTES_MAX, &text, err) < 0)
        return -1;
    struct str rest = text;
    struct str line = str_cut(&rest, '\n');
    if (str_ends(line, STR("\r")))
        line.n--;
    if (line.n == 0 || memchr(line.p, '\0', line.n) != NULL)
        return err_set(err, ERR_INVALID, "the first line of \"%s\" is not a password",
                       origin->password_file);
    ret->password = copy(line);
    return 0;
}

int credentials_load(const struct importer_origin *origin, struct str host, struct credentials *ret,
                     struct err *err)
{
    struct credentials credentials = {0};
    if (origin->username != NULL) {
        if (strchr(origin->username, ':') != NULL) /* RFC 7617, section 2 */
            return err_set(err, ERR_INVALID, "a user name cannot hold \":\"");
        if (read_password(origin, &credentials, err) < 0)
            return -1;
        credentials.username = mem_strdup(origin->username);
    } else if (origin->docker_config != NULL) {
        __attribute__((cleanup(own_file_free))) struct str text = {0};
        if (read_own_file(origin->docker_config, DOCKER_CONFIG_BYTES_MAX, &text, err) < 0 ||
            credentials_from_docker(text, host, &credentials, err) < 0)
            return -1;
        if (credentials.username == NULL && credentials.identity == NULL)
            return err_set(err, ERR_NOT_FOUND, "\"%s\" has no entry for \"" STR_FMT "\"",
                           origin->docker_config, STR_ARG(host));
    }
    *ret = credentials;
    return 0;
}
