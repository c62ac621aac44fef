/* Settings whose value is not shown, and the files that hold such values. What is said of them
 * names the key, the variable or the flag, and never the value. */
#include "config/config_int.h"

#define FILE_PREFIX "file:" /* also as in file:///run/secrets/key, RFC 8089 */

static struct str *value_of(struct config *config, const struct setting *setting)
{
    return (struct str *)(void *)((char *)config + setting->offset);
}
static struct str *file_of(struct config *config, const struct setting *setting)
{
    return (struct str *)(void *)((char *)config + setting->file_offset);
}

/* ---- Masks ---- */

static size_t find_last(struct str s, char c)
{
    const char *at = s.n > 0 ? memrchr(s.p, c, s.n) : NULL;
    return at != NULL ? (size_t)(at - s.p) : s.n;
}

/* "password" and "sslpassword" of libpq. */
static bool is_password(struct str name)
{
    struct str word = STR("password");
    return name.n >= word.n && str_eq_nocase(str_from_at(name, name.n - word.n), word);
}

static void add_query_masked(struct buf *out, struct str query)
{
    while (query.n > 0) {
        bool more = str_find(query, '&') < query.n;
        struct str value = str_cut(&query, '&');
        bool has_value = str_find(value, '=') + 1 < value.n;
        struct str name = str_first(value, str_find(value, '='));
        if (has_value && is_password(name))
            buf_printf(out, STR_FMT "=%s", STR_ARG(name), CONFIG_MASK);
        else
            buf_add_str(out, value);
        if (more)
            buf_add_char(out, '&');
    }
}

/* Generous, because a password may have '@', ':' or '/' that should have been written as %40:
 * all from the first ':' to the last '@' is one. */
void config_add_masked(struct buf *out, struct str text)
{
    static const char mark[] = "://";
    const char *scheme = text.n > 0 ? memmem(text.p, text.n, mark, strlen(mark)) : NULL;
    if (scheme == NULL) {
        buf_add_str(out, text);
        return;
    }
    size_t begin = (size_t)(scheme - text.p) + strlen(mark);
    struct str rest = str_from_at(text, begin);
    buf_add_str(out, str_first(text, begin));

    size_t colon = str_find(rest, ':');
    size_t at = find_last(rest, '@');
    if (at < rest.n && colon < at) {
        buf_add_str(out, str_first(rest, colon + 1));
        if (colon + 1 < at)
            buf_add_str(out, STR(CONFIG_MASK));
        rest = str_from_at(rest, at);
    }
    size_t query = str_find(rest, '?');
    buf_add_str(out, str_first(rest, query + 1));
    add_query_masked(out, str_from_at(rest, query + 1));
}

static bool is_masked(const struct setting *setting, struct str text)
{
    return setting->kind == SETTING_KIND_SECRET
               ? str_eq(text, STR(CONFIG_MASK))
               : memmem(text.p, text.n, CONFIG_MASK, strlen(CONFIG_MASK)) != NULL;
}

/* ---- Values ---- */

static int value_set(struct config *config, const struct setting *setting, struct str text,
                     struct err *err)
{
    if (text.n > TEXT_BYTES_MAX)
        return err_set(err, ERR_INVALID, "is longer than %d bytes", TEXT_BYTES_MAX);
    if (!config_is_printable(text))
        return err_set(err, ERR_INVALID, "is not one line of printable UTF-8 text");
    if (text.n > 0 && is_masked(setting, text))
        return err_set(err, ERR_INVALID,
                       "has " CONFIG_MASK
                       " where check-config leaves out what is secret; write the "
                       "secret itself, or file:PATH");
    if (config_check_form(config, setting, text, err) != 0)
        return -1;
    *value_of(config, setting) = str_dup(&config->arena, text);
    return 0;
}

int hidden_set(struct config *config, const struct setting *setting, struct str text,
               struct err *err)
{
    struct str path = {0};
    if (str_starts(text, STR(FILE_PREFIX))) {
        path = str_from_at(text, strlen(FILE_PREFIX));
        if (path.n == 0 || path.n > TEXT_BYTES_MAX || !config_is_printable(path))
            return err_set(err, ERR_INVALID, "needs the path of a file behind " FILE_PREFIX);
        text = STR("");
    }
    if (value_set(config, setting, text, err) != 0)
        return -1;
    *file_of(config, setting) = str_dup(&config->arena, path);
    return 0;
}

void hidden_print(const struct config *config, const struct setting *setting, struct buf *out)
{
    struct str value;
    struct str file;
    memcpy(&value, (const char *)config + setting->offset, sizeof(value));
    memcpy(&file, (const char *)config + setting->file_offset, sizeof(file));

    auto_buf shown = BUF_INIT(TEXT_BYTES_MAX * 2 + 2 * strlen(CONFIG_MASK));
    if (file.n > 0)
        buf_printf(&shown, FILE_PREFIX STR_FMT, STR_ARG(file));
    else if (setting->kind == SETTING_KIND_URL)
        config_add_masked(&shown, value);
    else if (value.n > 0)
        buf_add_str(&shown, STR(CONFIG_MASK));
    buf_add_json(out, buf_str(&shown));
}

/* ---- Files ---- */

/* What a file holds, without the end of its line. */
static struct str first_line(const struct buf *content)
{
    struct str text = buf_str(content);
    if (str_ends(text, STR("\n")))
        text.n--;
    if (str_ends(text, STR("\r")))
        text.n--;
    return text;
}

static void read_secret(struct loading *loading, const struct setting *setting)
{
    struct config *config = &loading->config;
    const char *where = loading->where[setting - settings].p;
    struct str path = *file_of(config, setting);
    const char *shown = config_quote(&loading->scratch, path);

    auto_buf content = BUF_INIT(TEXT_BYTES_MAX + 2);
    struct err err = {.kind = ERR_NONE};
    int failure = config_read_file(path.p, &content);
    struct str text = first_line(&content);
    if (failure != 0)
        loading_complain(loading, "%s: could not read %s: %s", where, shown,
                         strerrordesc_np(failure));
    else if (content.overflow)
        loading_complain(loading, "%s: %s is larger than %d bytes", where, shown, TEXT_BYTES_MAX);
    else if (text.n == 0)
        loading_complain(loading, "%s: %s is empty", where, shown);
    else if (value_set(config, setting, text, &err) != 0)
        loading_complain(loading, "%s: what %s holds %s", where, shown, err.say);
}

void config_read_secrets(struct loading *loading)
{
    for (size_t i = 0; i < SETTINGS && !loading_is_full(loading); i++)
        if (setting_is_hidden(&settings[i]) && file_of(&loading->config, &settings[i])->n > 0)
            read_secret(loading, &settings[i]);
}
