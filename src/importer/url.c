/* URLs by libcurl's reader, which is the one that will connect: where the two would differ, a
 * password could go to a host that was not looked at. */
#include "importer/live_int.h"

#include <curl/curl.h>

#define URL_BYTES_MAX 8192

static void curl_url_auto(CURLU **url)
{
    curl_url_cleanup(*url);
}
#define auto_curlu __attribute__((cleanup(curl_url_auto))) CURLU *

/* arena, NUL-ended; p NULL: the URL has no such part. */
static struct str part(struct arena *arena, CURLU *url, CURLUPart which, unsigned flags)
{
    char *text = NULL;
    if (curl_url_get(url, which, &text, flags) != CURLUE_OK)
        return (struct str){0};
    struct str copy = str_from(str_z(arena, str_from(text)));
    curl_free(text);
    return copy;
}

static bool is_loopback(struct str host)
{
    return str_eq_nocase(host, STR("localhost")) || str_eq(host, STR("[::1]")) ||
           (str_starts(host, STR("127.")) &&
            strspn(host.p, "0123456789.") == host.n); /* NUL-ended */
}

static struct str lower_case(struct arena *arena, struct str s)
{
    char *text = str_z(arena, s);
    for (size_t i = 0; i < s.n; i++)
        if (text[i] >= 'A' && text[i] <= 'Z')
            text[i] = (char)(text[i] - 'A' + 'a');
    return (struct str){text, s.n};
}

/* Takes its parts out of what curl has read. */
static int url_take(struct arena *arena, CURLU *read, struct url *ret, struct err *err)
{
    struct str scheme = part(arena, read, CURLUPART_SCHEME, 0);
    struct str host = part(arena, read, CURLUPART_HOST, 0);
    struct str port = part(arena, read, CURLUPART_PORT, CURLU_DEFAULT_PORT);
    bool is_https = str_eq(scheme, STR("https"));
    if (!is_https && !str_eq(scheme, STR("http")))
        return err_set(err, ERR_INVALID,
                       "a URL has the scheme \"" STR_FMT "\", and only https and http are used",
                       STR_ARG(str_first(scheme, 20)));
    if (part(arena, read, CURLUPART_USER, 0).p != NULL ||
        part(arena, read, CURLUPART_PASSWORD, 0).p != NULL)
        return err_set(err, ERR_INVALID, "a URL must not hold a user name or password");
    bool is_usual = str_eq(port, is_https ? STR("443") : STR("80"));
    struct str lower = lower_case(arena, host);
    *ret = (struct url){
        .text = part(arena, read, CURLUPART_URL, 0),
        .origin = str_printf(arena, STR_FMT "://" STR_FMT ":" STR_FMT, STR_ARG(scheme),
                             STR_ARG(lower), STR_ARG(port)),
        .path = part(arena, read, CURLUPART_PATH, 0),
        .query = part(arena, read, CURLUPART_QUERY, 0),
        .host = is_usual ? lower
                         : str_printf(arena, STR_FMT ":" STR_FMT, STR_ARG(lower), STR_ARG(port)),
        .is_https = is_https,
        .is_loopback = is_loopback(host),
    };
    return 0;
}

static int unreadable(struct str text, struct err *err)
{
    return err_set(err, ERR_INVALID, "\"" STR_FMT "\" is not a URL", STR_ARG(str_first(text, 120)));
}

int url_read(struct arena *arena, const struct url *base, struct str text, struct url *ret,
             struct err *err)
{
    auto_curlu read = curl_url();
    if (read == NULL)
        return err_set(err, ERR_BUSY, "not enough memory to read a URL");
    for (size_t i = 0; i < text.n; i++)
        if ((unsigned char)text.p[i] <= ' ' || text.p[i] == 0x7f)
            return unreadable(text, err);
    if (text.n == 0 || text.n > URL_BYTES_MAX)
        return unreadable(text, err);
    if (base != NULL && curl_url_set(read, CURLUPART_URL, base->text.p, 0) != CURLUE_OK)
        return unreadable(base->text, err);
    if (curl_url_set(read, CURLUPART_URL, str_z(arena, text), CURLU_NON_SUPPORT_SCHEME) !=
            CURLUE_OK ||
        curl_url_set(read, CURLUPART_FRAGMENT, NULL, 0) != CURLUE_OK)
        return unreadable(text, err);
    return url_take(arena, read, ret, err);
}

int url_add_parameter(struct arena *arena, struct url *url, const char *name, struct str value,
                      struct err *err)
{
    auto_curlu read = curl_url();
    struct str text = str_printf(arena, "%s=%s", name, str_z(arena, value));
    if (read == NULL)
        return err_set(err, ERR_BUSY, "not enough memory to read a URL");
    if (curl_url_set(read, CURLUPART_URL, url->text.p, 0) != CURLUE_OK || value.n > URL_BYTES_MAX ||
        curl_url_set(read, CURLUPART_QUERY, text.p, CURLU_APPENDQUERY | CURLU_URLENCODE) !=
            CURLUE_OK)
        return err_set(err, ERR_INVALID, "a parameter \"%s\" cannot be put into a URL", name);
    return url_take(arena, read, url, err);
}
