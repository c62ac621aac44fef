/* Range and the entity tags of conditional requests: pure functions over header texts. */
#include "http/http.h"

/* One position; a number too large for us is as good as the end of everything.
 * False: no digit is there. */
static bool eat_position(struct str *s, uint64_t *ret)
{
    size_t n = 0;
    while (n < s->n && s->p[n] >= '0' && s->p[n] <= '9')
        n++;
    if (n == 0)
        return false;
    struct str digits = str_first(*s, n);
    if (!str_eat_u64(&digits, UINT64_MAX, ret))
        *ret = UINT64_MAX;
    *s = str_from_at(*s, n);
    return true;
}

static bool eat_char(struct str *s, char c)
{
    if (s->n == 0 || s->p[0] != c)
        return false;
    *s = str_from_at(*s, 1);
    return true;
}

static enum http_range suffix_range(uint64_t length, uint64_t size, uint64_t *ret_first,
                                    uint64_t *ret_last)
{
    if (length == 0 || size == 0)
        return HTTP_RANGE_UNSATISFIABLE;
    *ret_first = length < size ? size - length : 0;
    *ret_last = size - 1;
    return HTTP_RANGE_PART;
}

enum http_range http_range_parse(struct str header, uint64_t size, uint64_t *ret_first,
                                 uint64_t *ret_last)
{
    struct str rest = str_trim(header);
    if (!str_eq_nocase(str_cut(&rest, '='), STR("bytes")) || rest.n == 0)
        return HTTP_RANGE_NONE;
    rest = str_trim(rest);
    if (str_find(rest, ',') < rest.n)
        return HTTP_RANGE_NONE;

    uint64_t first = 0;
    uint64_t last = 0;
    if (eat_char(&rest, '-')) {
        if (!eat_position(&rest, &last) || rest.n > 0)
            return HTTP_RANGE_NONE;
        return suffix_range(last, size, ret_first, ret_last);
    }
    if (!eat_position(&rest, &first) || !eat_char(&rest, '-'))
        return HTTP_RANGE_NONE;
    bool open = !eat_position(&rest, &last);
    if (rest.n > 0)
        return HTTP_RANGE_NONE;
    /* A last position before the first makes the range invalid, which may be ignored or refused
     * (RFC 9110, 14.1.1); registries' clients expect it refused. */
    if (first >= size || (!open && last < first))
        return HTTP_RANGE_UNSATISFIABLE;
    *ret_first = first;
    *ret_last = open || last >= size ? size - 1 : last;
    return HTTP_RANGE_PART;
}

/* Takes the next element of a list of entity tags. A quoted one may hold commas. */
static struct str eat_etag(struct str *list)
{
    struct str tag;
    while (list->n > 0 && (list->p[0] == ' ' || list->p[0] == '\t' || list->p[0] == ','))
        *list = str_from_at(*list, 1);
    if (str_starts(*list, STR("W/")) || str_starts(*list, STR("w/")))
        *list = str_from_at(*list, 2);
    if (!eat_char(list, '"'))
        return str_trim(str_cut(list, ','));
    tag = str_cut(list, '"');
    (void)str_cut(list, ',');
    return tag;
}

bool http_etag_matches(struct str header, struct str etag, bool exists)
{
    struct str rest = str_trim(header);
    if (str_eq(rest, STR("*")))
        return exists;
    while (rest.n > 0)
        if (str_eq(eat_etag(&rest), etag) && exists)
            return true;
    return false;
}
