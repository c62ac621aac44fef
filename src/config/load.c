/* config_load: the sources in rising order of precedence, then what must go together. */
#include "config/config_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>

#define TEST_PREFIX "HOLDFAST_TEST_"
#define CONFIG_VARIABLE "HOLDFAST_CONFIG"

/* ---- Complaints ---- */

bool loading_is_full(const struct loading *loading)
{
    return loading->n_complaints > COMPLAINTS_MAX;
}

void loading_complain(struct loading *loading, const char *fmt, ...)
{
    if (loading_is_full(loading))
        return;
    if (loading->n_complaints++ == COMPLAINTS_MAX) {
        buf_add_str(loading->complaints, STR("and more; these are the first\n"));
        return;
    }
    char line[COMPLAINT_BYTES_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(line, sizeof(line), fmt, args);
    va_end(args);
    buf_printf(loading->complaints, "%s\n", line);
}

void loading_complain_unknown(struct loading *loading, const char *prefix, const char *thing,
                              struct str name, enum spelling spelling)
{
    char meant[SETTING_NAME_BYTES];
    const char *quoted = config_quote(&loading->scratch, name);
    if (setting_suggest(name, spelling, meant))
        loading_complain(loading, "%sunknown %s %s; did you mean \"%s\"?", prefix, thing, quoted,
                         meant);
    else
        loading_complain(loading, "%sunknown %s %s", prefix, thing, quoted);
}

/* ---- Values ---- */

void loading_give_list(struct loading *loading, const struct setting *setting, enum source source,
                       struct str where)
{
    size_t id = (size_t)(setting - settings);
    *setting_count(&loading->config, setting) = 0;
    loading->source[id] = source;
    loading->where[id] = where;
}

void loading_give(struct loading *loading, const struct setting *setting, enum source source,
                  struct str where, struct str text)
{
    size_t id = (size_t)(setting - settings);
    require(source >= loading->source[id]);
    if (setting->kind == SETTING_KIND_LIST && source > loading->source[id])
        loading_give_list(loading, setting, source, where);
    loading->source[id] = source;
    loading->where[id] = where;

    struct err err;
    if (setting_set(&loading->config, setting, text, &err) != 0)
        loading_complain(loading, STR_FMT ": %s", STR_ARG(where), err.say);
}

/* A flag's or a variable's text: a list's elements are separated by commas, and no text is a list
 * of none. */
static void give_text(struct loading *loading, const struct setting *setting, enum source source,
                      struct str where, struct str text)
{
    if (setting->kind != SETTING_KIND_LIST) {
        loading_give(loading, setting, source, where, text);
        return;
    }
    if (text.n == 0)
        loading_give_list(loading, setting, source, where);
    for (bool more = text.n > 0; more && !loading_is_full(loading);) {
        more = str_find(text, ',') < text.n;
        loading_give(loading, setting, source, where, str_trim(str_cut(&text, ',')));
    }
}

static void give_defaults(struct loading *loading)
{
    for (size_t i = 0; i < SETTINGS; i++)
        give_text(loading, &settings[i], SOURCE_DEFAULT, str_from(settings[i].key),
                  str_from(settings[i].fallback));
    require(loading->n_complaints == 0);
}

/* ---- Arguments ---- */

/* One flag with its value, or a word that is none. */
struct argument {
    struct str text; /* the flag without "=value"; or the word */
    bool is_flag;
    bool is_config;
    const struct setting *setting; /* NULL: unknown, or --config */
    struct str value;              /* p NULL: none */
};

/* Takes the next one from *at on. False: there are no more. */
static bool argument_next(const struct config_sources *sources, int *at, struct argument *ret)
{
    if (*at >= sources->n_arguments)
        return false;
    struct str value = str_from(sources->arguments[(*at)++]);
    struct argument argument = {.text = value, .is_flag = str_starts(value, STR("-"))};
    if (argument.is_flag) {
        bool has_value = str_find(value, '=') < value.n;
        argument.text = str_cut(&value, '=');
        argument.is_config = str_eq(argument.text, STR("--config"));
        argument.setting = setting_find(argument.text, SPELLING_FLAG);
        bool is_switch = argument.setting != NULL && argument.setting->kind == SETTING_KIND_FLAG;
        bool known = argument.setting != NULL || argument.is_config;
        if (has_value)
            argument.value = value;
        else if (is_switch)
            argument.value = STR("true");
        else if (known && *at < sources->n_arguments &&
                 !str_starts(str_from(sources->arguments[*at]), STR("--")))
            argument.value = str_from(sources->arguments[(*at)++]);
    }
    *ret = argument;
    return true;
}

/* A word that belongs to no flag. */
static void complain_word(struct loading *loading, const struct argument *word,
                          const struct argument *before)
{
    const char *quoted = config_quote(&loading->scratch, word->text);
    if (before->setting != NULL && setting_is_hidden(before->setting))
        loading_complain(loading,
                         "unexpected argument behind the value of " STR_FMT "; quote the value",
                         STR_ARG(before->text)); /* it is the rest of a secret */
    else if (before->setting != NULL && before->setting->kind == SETTING_KIND_FLAG)
        loading_complain(loading, "unexpected argument %s; write " STR_FMT "=true or =false",
                         quoted, STR_ARG(before->text));
    else if (!before->is_flag || before->setting != NULL || before->is_config)
        loading_complain(loading, "unexpected argument %s", quoted);
    /* else it is the value of an unknown flag, and that was complained about */
}

static void read_arguments(struct loading *loading, const struct config_sources *sources)
{
    struct argument argument;
    struct argument before = {.is_flag = false};
    for (int at = 0; argument_next(sources, &at, &argument) && !loading_is_full(loading);
         before = argument) {
        if (!argument.is_flag) {
            complain_word(loading, &argument, &before);
        } else if (argument.setting == NULL && !argument.is_config) {
            bool is_secret = before.setting != NULL && setting_is_hidden(before.setting) &&
                             before.value.p == NULL; /* one that begins with "--" */
            if (!is_secret)
                loading_complain_unknown(loading, "", "flag", argument.text, SPELLING_FLAG);
        } else if (argument.value.p == NULL || (argument.is_config && argument.value.n == 0)) {
            loading_complain(loading, STR_FMT ": needs a value, as " STR_FMT "=%s",
                             STR_ARG(argument.text), STR_ARG(argument.text),
                             argument.is_config ? "FILE" : setting_placeholder(argument.setting));
        } else if (!argument.is_config) {
            give_text(loading, argument.setting, SOURCE_FLAG,
                      str_dup(&loading->scratch, argument.text), argument.value);
        }
    }
}

/* ---- Environment ---- */

/* Kubernetes sets variables like these for each service of the namespace, and container links did
 * before it; a service that is called "holdfast" must not stop us from starting. */
static bool is_service_link(struct str name, struct str value)
{
    const char *z = name.p; /* the whole variable is NUL-ended; "=" ends the name */
    size_t n = name.n;
    if (str_ends(name, STR("_SERVICE_HOST")) || str_ends(name, STR("_SERVICE_PORT")) ||
        memmem(z, n, "_SERVICE_PORT_", strlen("_SERVICE_PORT_")) != NULL)
        return true;
    if (str_ends(name, STR("_PORT")))
        return memmem(value.p, value.n, "://", strlen("://")) != NULL;
    const char *port = memmem(z, n, "_PORT_", strlen("_PORT_"));
    if (port == NULL)
        return false;
    struct str rest = str_from_at(name, (size_t)(port - z) + strlen("_PORT_"));
    uint64_t number;
    return str_eat_u64(&rest, UINT16_MAX, &number) &&
           (str_starts(rest, STR("_TCP")) || str_starts(rest, STR("_UDP")) ||
            str_starts(rest, STR("_SCTP")));
}

/* Other programs read a secret's file by a second variable; ours is the same one. */
static void complain_variable(struct loading *loading, struct str name)
{
    struct str ending = STR("_FILE");
    struct str bare = str_first(name, str_ends(name, ending) ? name.n - ending.n : 0);
    const struct setting *setting = setting_find(bare, SPELLING_VARIABLE);
    if (setting != NULL && setting_is_hidden(setting))
        loading_complain(loading, "unknown variable \"" STR_FMT "\"; write " STR_FMT "=file:PATH",
                         STR_ARG(name), STR_ARG(bare));
    else
        loading_complain_unknown(loading, "", "variable", name, SPELLING_VARIABLE);
}

static void read_environment(struct loading *loading, char *const *environment)
{
    for (; environment != NULL && *environment != NULL && !loading_is_full(loading);
         environment++) {
        struct str value = str_from(*environment);
        struct str name = str_cut(&value, '=');
        if (!str_starts(name, STR(VARIABLE_PREFIX)) || str_starts(name, STR(TEST_PREFIX)) ||
            str_eq(name, STR(CONFIG_VARIABLE)))
            continue;
        const struct setting *setting = setting_find(name, SPELLING_VARIABLE);
        if (setting != NULL)
            give_text(loading, setting, SOURCE_ENVIRONMENT, str_dup(&loading->scratch, name),
                      value);
        else if (!is_service_link(name, value))
            complain_variable(loading, name);
    }
}

/* ---- The file ---- */

/* NULL: none. borrowed from the sources */
static const char *file_choose(const struct config_sources *sources)
{
    const char *chosen = sources->file;
    char *const *variable = sources->environment;
    for (; variable != NULL && *variable != NULL; variable++) {
        struct str value = str_from(*variable);
        if (str_eq(str_cut(&value, '='), STR(CONFIG_VARIABLE)) && value.n > 0)
            chosen = value.p; /* NUL-ended: the rest of the variable */
    }
    struct argument argument;
    for (int at = 0; argument_next(sources, &at, &argument);)
        if (argument.is_config && argument.value.n > 0)
            chosen = argument.value.p; /* likewise */
    return chosen;
}

/* As it stands in complaints: quoted and cut when it is odd or very long. */
static const char *file_name_shown(struct loading *loading, const char *path)
{
    auto_buf quoted = BUF_INIT(400);
    buf_add_json(&quoted, str_from(path));
    bool plain = !quoted.overflow && quoted.n == strlen(path) + strlen("\"\"");
    return plain ? path : config_quote(&loading->scratch, str_from(path));
}

int config_read_file(const char *path, struct buf *content)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    ssize_t n = fd < 0 ? -1 : 1;
    while (n > 0 && !content->overflow) {
        char piece[8192];
        n = read(fd, piece, sizeof(piece));
        if (n < 0 && errno == EINTR)
            n = 1;
        else if (n > 0)
            buf_add(content, piece, (size_t)n);
    }
    return n < 0 ? errno : 0;
}

static void read_file(struct loading *loading, const char *path)
{
    const char *name = file_name_shown(loading, path);
    auto_buf content = BUF_INIT(CONFIG_FILE_BYTES_MAX);
    int failure = config_read_file(path, &content);
    if (failure != 0)
        loading_complain(loading, "%s: could not read the configuration: %s", name,
                         strerrordesc_np(failure));
    else if (content.overflow)
        loading_complain(loading, "%s: larger than %d bytes", name, CONFIG_FILE_BYTES_MAX);
    else
        config_read_yaml(loading, name, buf_str(&content));
}

/* ---- What must go together ---- */

/* Where a value comes from; the key when it is the default. */
static const char *where(const struct loading *loading, enum setting_id id)
{
    return loading->where[id].p;
}

static void check_tls(struct loading *loading)
{
    const struct config *config = &loading->config;
    bool certificate = config->tls_certificate.n > 0;
    bool authority = config->tls_client_ca.n > 0;
    bool asked = config->tls_client_auth != CONFIG_CLIENT_AUTH_NONE;
    if (certificate && config->tls_key.n == 0)
        loading_complain(loading, "%s: needs tls.key, the file of its private key",
                         where(loading, SETTING_tls_certificate));
    if (!certificate && config->tls_key.n > 0)
        loading_complain(loading, "%s: needs tls.certificate, the file of its certificate",
                         where(loading, SETTING_tls_key));
    if (asked && !authority)
        loading_complain(loading, "%s: needs tls.client_ca, the file of the CAs that are believed",
                         where(loading, SETTING_tls_client_auth));
    if (asked && !certificate)
        loading_complain(loading, "%s: needs TLS: give tls.certificate and tls.key",
                         where(loading, SETTING_tls_client_auth));
    if (authority && !asked)
        loading_complain(loading,
                         "%s: has no effect while tls.client_auth is none; set it to optional or "
                         "required, or leave tls.client_ca out",
                         where(loading, SETTING_tls_client_ca));
}

static void check_listen(struct loading *loading)
{
    const struct config *config = &loading->config;
    for (size_t i = 0; i < config->n_listen; i++) {
        const struct config_listen *listen = &config->listen[i];
        if (config_may_listen(config, (const struct sockaddr *)&listen->address))
            continue;
        loading_complain(
            loading,
            "%s: \"" STR_FMT "\" is not a loopback address, and access.anonymous is push: anybody "
            "who reaches it could push and delete; either listen on a loopback address, as "
            "127.0.0.1:5000; or set access.anonymous to pull or none; or, if only friends reach "
            "it, set access.anonymous_push_anywhere to true",
            where(loading, SETTING_listen), STR_ARG(listen->text));
        return;
    }
}

static void check_lists(struct loading *loading)
{
    for (size_t i = 0; i < SETTINGS; i++)
        if (settings[i].kind == SETTING_KIND_LIST && !settings[i].list->may_be_empty &&
            *setting_count(&loading->config, &settings[i]) == 0)
            loading_complain(loading, "%s: at least one is needed, as %s",
                             where(loading, (enum setting_id)i), settings[i].fallback);
}

/* ---- All of it ---- */

static int finish(struct loading *loading, struct config *ret)
{
    if (loading->n_complaints == 0) { /* else they would complain about what was not understood */
        check_lists(loading);
        check_tls(loading);
        check_listen(loading);
        config_check_stores(loading);
    }
    arena_done(&loading->scratch);
    if (loading->n_complaints > 0) {
        config_done(&loading->config);
        return -1;
    }
    *ret = loading->config;
    return 0;
}

int config_load(const struct config_sources *sources, struct config *ret,
                struct buf *ret_complaints)
{
    struct loading loading = {.complaints = ret_complaints};
    give_defaults(&loading);
    const char *file = file_choose(sources);
    if (file != NULL)
        read_file(&loading, file);
    read_environment(&loading, sources->environment);
    read_arguments(&loading, sources);
    config_read_secrets(&loading);
    return finish(&loading, ret);
}

int config_load_yaml(const char *name, struct str yaml, struct config *ret,
                     struct buf *ret_complaints)
{
    struct loading loading = {.complaints = ret_complaints};
    give_defaults(&loading);
    config_read_yaml(&loading, name, yaml);
    return finish(&loading, ret);
}

void config_done(struct config *config)
{
    arena_done(&config->arena);
    *config = (struct config){.n_listen = 0};
}
