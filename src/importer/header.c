#include "importer/live_int.h"

#include <curl/curl.h>

bool header_next(struct str *lines, struct str name, struct str *ret_value)
{
    while (lines->n > 0) {
        struct str line = str_cut(lines, '\n');
        struct str field = str_cut(&line, ':');
        if (!str_eq_nocase(field, name))
            continue;
        if (str_ends(line, STR("\r")))
            line.n--;
        *ret_value = str_trim(line);
        return true;
    }
    return false;
}

/* ---- The words of which fields are made: RFC 9110, section 5.6 ---- */

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token68_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("-._~+/", c) != NULL);
}

static struct str eat_while(struct str *s, bool (*belongs)(char c))
{
    size_t n = 0;
    while (n < s->n && belongs(s->p[n]))
        n++;
    struct str word = str_first(*s, n);
    *s = str_from_at(*s, n);
    return word;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static bool is_blank_or_comma(char c)
{
    return is_blank(c) || c == ',';
}

static bool eat_char(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c)
        return false;
    *s = str_from_at(*s, 1);
    return true;
}

/* What stands between the quotes; *s begins behind the first one. False: there is no second. */
static bool eat_quoted(struct arena *arena, struct str *s, struct str *ret)
{
    size_t end = 0;
    while (end < s->n && s->p[end] != '"')
        end += s->p[end] == '\\' ? 2 : 1;
    if (end >= s->n)
        return false;
    char *text = arena_alloc(arena, end + 1);
    size_t n = 0;
    for (size_t i = 0; i < end; i++) {
        if (s->p[i] == '\\')
            i++;
        text[n++] = s->p[i];
    }
    *ret = (struct str){text, n};
    *s = str_from_at(*s, end + 1);
    return true;
}

/* ---- WWW-Authenticate ---- */

static void keep_parameter(struct challenge *challenge, struct str name, struct str value)
{
    if (str_eq_nocase(name, STR("realm")))
        challenge->realm = value;
    else if (str_eq_nocase(name, STR("service")))
        challenge->service = value;
    else if (str_eq_nocase(name, STR("scope")))
        challenge->scope = value;
}

/* A scheme may be followed by one word of base 64 instead of parameters; it is of no use here. */
static void skip_token68(struct str *header)
{
    struct str rest = *header;
    struct str word = eat_while(&rest, is_token68_char);
    while (eat_char(&rest, '='))
        continue;
    (void)eat_while(&rest, is_blank);
    if (word.n > 0 && (rest.n == 0 || rest.p[0] == ','))
        *header = rest;
}

bool challenge_next(struct arena *arena, struct str *header, struct challenge *ret)
{
    struct str rest = *header;
    (void)eat_while(&rest, is_blank_or_comma);
    struct challenge challenge = {.scheme = eat_while(&rest, is_token_char)};
    if (challenge.scheme.n == 0 || (rest.n > 0 && !is_blank_or_comma(rest.p[0])))
        return false;
    (void)eat_while(&rest, is_blank);
    skip_token68(&rest);
    for (;;) {
        struct str at = rest; /* the next challenge begins here, unless it is a parameter */
        (void)eat_while(&at, is_blank_or_comma);
        struct str name = eat_while(&at, is_token_char);
        (void)eat_while(&at, is_blank);
        if (name.n == 0 || !eat_char(&at, '='))
            break;
        (void)eat_while(&at, is_blank);
        struct str value;
        if (!eat_char(&at, '"'))
            value = str_dup(arena, eat_while(&at, is_token_char));
        else if (!eat_quoted(arena, &at, &value))
            return false;
        keep_parameter(&challenge, name, value);
        rest = at;
    }
    *header = rest;
    *ret = challenge;
    return true;
}

/* ---- Link ---- */

/* Whether a list of relations, with blanks between, holds "next". */
static bool relates_next(struct str relations)
{
    while (relations.n > 0)
        if (str_eq_nocase(str_cut(&relations, ' '), STR("next")))
            return true;
    return false;
}

struct str link_next(struct str header)
{
    const struct str none = {0};
    while (header.n > 0) {
        (void)eat_while(&header, is_blank_or_comma);
        if (!eat_char(&header, '<'))
            return none;
        size_t end = str_find(header, '>');
        if (end == header.n)
            return none;
        struct str target = str_first(header, end);
        header = str_from_at(header, end + 1);

        bool is_next = false;
        for (;;) {
            (void)eat_while(&header, is_blank);
            if (!eat_char(&header, ';'))
                break;
            (void)eat_while(&header, is_blank);
            struct str name = eat_while(&header, is_token_char);
            (void)eat_while(&header, is_blank);
            if (!eat_char(&header, '='))
                continue;
            (void)eat_while(&header, is_blank);
            auto_arena arena = {0};
            struct str value;
            if (!eat_char(&header, '"'))
                value = eat_while(&header, is_token_char);
            else if (!eat_quoted(&arena, &header, &value))
                return none;
            is_next = is_next || (str_eq_nocase(name, STR("rel")) && relates_next(value));
        }
        if (is_next)
            return target;
        if (header.n > 0 && header.p[0] != ',')
            return none;
    }
    return none;
}

/* ---- Retry-After ---- */

#define SECONDS_MAX UINT64_C(1000000000)

int64_t retry_after_us(struct str value, struct wall_us now)
{
    struct err ignored;
    uint64_t seconds;
    if (str_to_u64(value, SECONDS_MAX, &seconds, &ignored) == 0)
        return (int64_t)seconds * CLOCK_SECOND_US;
    if (value.n == 0 || value.n > 64)
        return -1;
    auto_arena arena = {0};
    time_t at = curl_getdate(str_z(&arena, value), NULL);
    if (at < 0 || at > (time_t)(INT64_MAX / CLOCK_SECOND_US))
        return -1;
    int64_t left = (int64_t)at * CLOCK_SECOND_US - now.us;
    return left > 0 ? left : 0;
}
