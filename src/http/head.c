/* What a request's head says, and whether it can be trusted to say it.
 *
 * libmicrohttpd 0.9.75 reads heads leniently: folded lines become part of the header's name, bytes
 * after a NUL vanish, "Content-Length :" is another header than "Content-Length:". A proxy before
 * us that reads the same bytes differently would disagree about where the body ends (request
 * smuggling), so whatever is not plainly well-formed is refused here. */
#include "http/http_int.h"

static bool is_token_char(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (!is_token_char(s.p[i]))
            return false;
    return s.n > 0;
}

/* RFC 9110, section 5.5: no control characters but the tab. */
static bool is_field_value(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return false;
    }
    return true;
}

static bool is_target(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c <= 0x20 || c == 0x7f)
            return false;
    }
    return s.n > 0;
}

/* What the walk over the headers gathers. */
struct framing {
    const char *expected; /* where the next header's name must stand */
    const char *broken;   /* static: what is wrong; NULL: nothing */
    struct str content_length;
    struct str transfer_encoding;
    unsigned content_lengths; /* that differ */
    unsigned transfer_encodings;
    unsigned hosts;
    bool expects_continue;
};

/* The library parses in place: a header is its name, a colon that became NUL, blanks, the value and
 * a line end that became two NULs. Anything else between two headers was not what it seemed: a
 * folded line, a bare line feed or a NUL. */
static void check_place(struct framing *framing, struct str name, struct str value)
{
    const char *after_colon = name.p + name.n + 1;
    if (name.p != framing->expected || value.p < after_colon) {
        framing->broken = "a header line does not end in CR LF, is folded or holds a NUL";
        return;
    }
    for (const char *p = after_colon; p < value.p; p++)
        if (*p != ' ' && *p != '\t')
            framing->broken = "a header line is malformed";
    framing->expected = value.p + value.n + 2;
}

static enum MHD_Result visit_header(void *cls, enum MHD_ValueKind kind, const char *key,
                                    size_t key_size, const char *value_text, size_t value_size)
{
    (void)kind;
    struct framing *framing = cls;
    struct str name = {key, key_size};
    struct str value = {value_text != NULL ? value_text : key + key_size, value_size};

    if (!is_token(name))
        framing->broken = "a header's name is malformed";
    else if (!is_field_value(value))
        framing->broken = "a header's value holds a control character";
    else
        check_place(framing, name, value);
    if (framing->broken != NULL)
        return MHD_NO;

    value = str_trim(value);
    if (name.n == 4 && str_eq_nocase(name, STR("host"))) {
        framing->hosts++;
    } else if (name.n == 6 && str_eq_nocase(name, STR("expect"))) {
        framing->expects_continue = str_eq_nocase(value, STR("100-continue"));
    } else if (name.n == 14 && str_eq_nocase(name, STR("content-length"))) {
        if (framing->content_lengths == 0 || !str_eq(value, framing->content_length))
            framing->content_lengths++;
        framing->content_length = value;
    } else if (name.n == 17 && str_eq_nocase(name, STR("transfer-encoding"))) {
        framing->transfer_encodings++;
        framing->transfer_encoding = value;
    }
    return MHD_YES;
}

static int refuse_head(struct http_exchange *x, unsigned status)
{
    x->response.status = status;
    return -1;
}

/* RFC 9112, section 6.3. */
static int read_framing(struct http_exchange *x, const struct framing *framing, bool is_1_0,
                        struct err *err)
{
    if (framing->transfer_encodings > 0) {
        if (framing->content_lengths > 0) {
            (void)err_set(err, ERR_INVALID, "both Content-Length and Transfer-Encoding are given");
            return refuse_head(x, MHD_HTTP_BAD_REQUEST);
        }
        if (is_1_0) {
            (void)err_set(err, ERR_INVALID, "Transfer-Encoding is not part of HTTP/1.0");
            return refuse_head(x, MHD_HTTP_BAD_REQUEST);
        }
        if (framing->transfer_encodings > 1 ||
            !str_eq_nocase(framing->transfer_encoding, STR("chunked"))) {
            (void)err_set(err, ERR_UNSUPPORTED, "Transfer-Encoding other than \"chunked\"");
            return refuse_head(x, MHD_HTTP_NOT_IMPLEMENTED);
        }
        x->has_body = true;
        return 0;
    }
    if (framing->content_lengths > 1) {
        (void)err_set(err, ERR_INVALID, "Content-Length is given twice and differs");
        return refuse_head(x, MHD_HTTP_BAD_REQUEST);
    }
    if (framing->content_lengths == 1) {
        if (str_to_u64(framing->content_length, INT64_MAX, &x->content_length, err) < 0)
            return refuse_head(x, MHD_HTTP_BAD_REQUEST);
        x->length_known = true;
        x->has_body = x->content_length > 0;
    }
    return 0;
}

/* RFC 9112, section 3.2: what comes before the path in the absolute form is not of interest; Host
 * says the same. */
static void split_target(struct http_exchange *x)
{
    struct str rest = x->target;
    size_t scheme = 0;
    if (rest.n > 8 && str_eq_nocase(str_first(rest, 8), STR("https://")))
        scheme = 8;
    else if (rest.n > 7 && str_eq_nocase(str_first(rest, 7), STR("http://")))
        scheme = 7;
    if (scheme > 0) {
        rest = str_from_at(rest, scheme);
        size_t at = 0;
        while (at < rest.n && rest.p[at] != '/' && rest.p[at] != '?')
            at++;
        rest = str_from_at(rest, at);
    }
    size_t mark = str_find(rest, '?');
    x->path = str_first(rest, mark);
    x->query = str_from_at(rest, mark + 1);
    if (scheme > 0 && x->path.n == 0)
        x->path = STR("/");
}

static enum http_method method_of(struct str text)
{
    static const struct {
        struct str name;
        enum http_method method;
    } known[HTTP_METHODS] = {
        {{"GET", 3}, HTTP_GET}, {{"HEAD", 4}, HTTP_HEAD},   {{"POST", 4}, HTTP_POST},
        {{"PUT", 3}, HTTP_PUT}, {{"PATCH", 5}, HTTP_PATCH}, {{"DELETE", 6}, HTTP_DELETE},
    };
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (str_eq(text, known[i].name))
            return known[i].method;
    return HTTP_OTHER;
}

static size_t head_bytes(struct http_exchange *x)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(x->connection->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
    return info != NULL ? info->header_size : 0;
}

int head_read(struct http_exchange *x, const char *url, const char *method, const char *version,
              struct err *err)
{
    struct str method_text = str_from(method);
    x->method_text = str_dup(&x->call.arena, method_text);
    x->method = method_of(method_text);
    split_target(x);

    if (x->target.n > HTTP_TARGET_BYTES_MAX) {
        (void)err_set(err, ERR_TOO_LARGE, "the request's URI is longer than %d bytes",
                      HTTP_TARGET_BYTES_MAX);
        return refuse_head(x, MHD_HTTP_URI_TOO_LONG);
    }
    size_t bytes = head_bytes(x);
    if (bytes > HTTP_HEAD_BYTES_MAX) {
        (void)err_set(err, ERR_TOO_LARGE, "the request's head is longer than %d bytes",
                      HTTP_HEAD_BYTES_MAX);
        return refuse_head(x, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE);
    }

    struct framing framing = {.expected = version + strlen(version) + 2};
    if (!is_token(method_text) || !is_target(x->target) || url != method + method_text.n + 1 ||
        version != url + x->target.n + 1)
        framing.broken = "the request line is malformed";
    else
        (void)MHD_get_connection_values_n(x->connection->mhd, MHD_HEADER_KIND, visit_header,
                                          &framing);
    if (framing.broken == NULL && framing.expected + 2 != method + bytes)
        framing.broken = "the head does not end in CR LF CR LF";
    if (framing.broken != NULL) {
        (void)err_set(err, ERR_INVALID, "the request's head is malformed: %s", framing.broken);
        return refuse_head(x, MHD_HTTP_BAD_REQUEST);
    }

    bool is_1_0 = strcmp(version, "HTTP/1.0") == 0;
    if (framing.hosts > 1 || (framing.hosts == 0 && !is_1_0)) {
        (void)err_set(err, ERR_INVALID, "a request has exactly one Host header");
        return refuse_head(x, MHD_HTTP_BAD_REQUEST);
    }
    x->expects_continue = framing.expects_continue && !is_1_0;
    return read_framing(x, &framing, is_1_0, err);
}
