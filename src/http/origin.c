/* How the client reached us, by our own connection or by the word of a trusted proxy. */
#include "http/http_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* ---- What may stand in an answer's URL ---- */

static bool is_port(struct str s)
{
    uint64_t port = 0;
    struct str rest = s;
    return s.n > 0 && s.n <= 5 && str_eat_u64(&rest, 65535, &port) && rest.n == 0;
}

static bool is_ip6(struct str s)
{
    char text[INET6_ADDRSTRLEN];
    struct in6_addr address;
    if (s.n == 0 || s.n >= sizeof(text) || memchr(s.p, '\0', s.n) != NULL)
        return false;
    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* A host name or an IPv4 address. Underscores are not for host names, and are used. */
static bool is_name(struct str s)
{
    if (s.n == 0 || s.n > 253 || s.p[0] == '.' || s.p[0] == '-')
        return false;
    for (size_t i = 0; i < s.n; i++) {
        char c = s.p[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        if (!letter && !(c >= '0' && c <= '9') && c != '-' && c != '_' &&
            !(c == '.' && s.p[i - 1] != '.'))
            return false;
    }
    return true;
}

/* host[:port]. */
static bool is_host(struct str s)
{
    struct str port = {NULL, 0};
    if (s.n > 0 && s.p[0] == '[') {
        size_t end = str_find(s, ']');
        if (end == s.n || !is_ip6((struct str){s.p + 1, end - 1}))
            return false;
        port = str_from_at(s, end + 1);
    } else {
        size_t colon = str_find(s, ':');
        if (!is_name(str_first(s, colon)))
            return false;
        port = str_from_at(s, colon);
    }
    return port.n == 0 || (port.p[0] == ':' && is_port(str_from_at(port, 1)));
}

static const char *scheme_of(struct str s)
{
    if (str_eq_nocase(s, STR("https")))
        return "https";
    if (str_eq_nocase(s, STR("http")))
        return "http";
    return NULL;
}

/* The numeric address in "192.0.2.1", "192.0.2.1:80", "[2001:db8::1]:80" or "2001:db8::1";
 * p NULL for anything else, as for RFC 7239's "unknown" and "_hidden". */
static struct str address_of(struct str s)
{
    const struct str none = {NULL, 0};
    if (s.n > 0 && s.p[0] == '[') {
        size_t end = str_find(s, ']');
        struct str inside = {s.p + 1, end - 1};
        return end < s.n && is_ip6(inside) ? inside : none;
    }
    if (is_ip6(s))
        return s;
    struct str host = str_first(s, str_find(s, ':'));
    char text[INET_ADDRSTRLEN];
    struct in_addr address;
    if (host.n == 0 || host.n >= sizeof(text) || memchr(host.p, '\0', host.n) != NULL)
        return none;
    memcpy(text, host.p, host.n);
    text[host.n] = '\0';
    return inet_pton(AF_INET, text, &address) == 1 ? host : none;
}

/* ---- Our own view ---- */

static struct str peer_address(struct arena *arena, const struct sockaddr *peer)
{
    char text[INET6_ADDRSTRLEN] = "";
    if (peer != NULL && peer->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)peer;
        (void)inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    } else if (peer != NULL && peer->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)peer;
        const uint8_t *bytes = in6->sin6_addr.s6_addr;
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr))
            (void)inet_ntop(AF_INET, bytes + 12, text, sizeof(text));
        else
            (void)inet_ntop(AF_INET6, bytes, text, sizeof(text));
    }
    return str_dup(arena, str_from(text));
}

/* ---- Forwarded: RFC 7239 ---- */

/* Takes a token or a quoted string, unquoted. False: neither is there. */
static bool eat_value(struct arena *arena, struct str *s, struct str *ret)
{
    if (s->n == 0 || s->p[0] != '"') {
        size_t n = 0;
        while (n < s->n && strchr(" \t,;=\"", s->p[n]) == NULL)
            n++;
        *ret = str_first(*s, n);
        *s = str_from_at(*s, n);
        return n > 0;
    }
    char *text = arena_alloc(arena, s->n);
    size_t n = 0;
    for (size_t i = 1; i < s->n; i++) {
        if (s->p[i] == '"') {
            *s = str_from_at(*s, i + 1);
            *ret = (struct str){text, n};
            return true;
        }
        if (s->p[i] == '\\' && ++i == s->n)
            break;
        text[n++] = s->p[i];
    }
    return false;
}

static void skip_blanks(struct str *s)
{
    while (s->n > 0 && (s->p[0] == ' ' || s->p[0] == '\t'))
        *s = str_from_at(*s, 1);
}

static void say(struct origin_said *said, struct str name, struct str value)
{
    if (str_eq_nocase(name, STR("proto")))
        said->scheme = scheme_of(value);
    else if (str_eq_nocase(name, STR("host")) && is_host(value))
        said->host = value;
    else if (str_eq_nocase(name, STR("for")))
        said->client = address_of(value);
}

struct origin_said origin_read_forwarded(struct arena *arena, struct str rest)
{
    const struct origin_said nothing = {0};
    struct origin_said said = {0};
    for (;;) {
        struct str name;
        struct str value;
        skip_blanks(&rest);
        if (rest.n == 0 || rest.p[0] == ',')
            return said;
        if (rest.p[0] == ';') {
            rest = str_from_at(rest, 1);
            continue;
        }
        if (rest.p[0] == '"' || !eat_value(arena, &rest, &name) || rest.n == 0 || rest.p[0] != '=')
            return nothing;
        rest = str_from_at(rest, 1);
        if (!eat_value(arena, &rest, &value))
            return nothing;
        say(&said, name, value);
        skip_blanks(&rest);
        if (rest.n > 0 && rest.p[0] != ';' && rest.p[0] != ',')
            return nothing;
    }
}

static struct str first_of(struct http_exchange *x, const char *name)
{
    struct str list = http_header_all(x, name);
    return str_trim(str_cut(&list, ','));
}

static struct origin_said read_x_forwarded(struct http_exchange *x)
{
    struct origin_said said = {.scheme = scheme_of(first_of(x, "X-Forwarded-Proto"))};
    struct str host = first_of(x, "X-Forwarded-Host");
    if (is_host(host))
        said.host = host;
    said.client = address_of(first_of(x, "X-Forwarded-For"));
    return said;
}

void http_origin(struct http_exchange *x, bool trusted, struct http_origin *ret)
{
    struct arena *arena = &x->call.arena;
    struct origin_said said = {0};
    if (trusted) {
        struct str forwarded = http_header_all(x, "Forwarded");
        said = forwarded.p != NULL ? origin_read_forwarded(arena, forwarded) : read_x_forwarded(x);
    }
    struct str host = http_header(x, "Host");
    if (said.host.p != NULL)
        ret->host = said.host;
    else
        ret->host = is_host(host) ? str_dup(arena, host) : STR("");
    ret->scheme = said.scheme != NULL ? said.scheme : x->secure ? "https" : "http";
    ret->client = said.client.p != NULL ? said.client : peer_address(arena, x->peer);
}
