#include "api/api_int.h"

#define LIST_BYTES_MAX (16u * 1024 * 1024)

static int add_name(void *context, struct str name, struct err *err)
{
    struct buf *out = context;
    (void)err;
    if (out->p[out->n - 1] != '[')
        buf_add_char(out, ',');
    buf_add_json(out, name);
    return 0;
}

/* "n=5&", for the link to the next page. */
static struct str page_parameters(struct request *request, const struct registry_page *page)
{
    return str_printf(&request->call->arena, "n=%llu&", (unsigned long long)page->limit);
}

int api_tag_list(struct request *request)
{
    struct call *call = request->call;
    struct registry_page page;
    struct str last;
    struct buf *out = &request->answer;
    out->max = LIST_BYTES_MAX;
    buf_add(out, "{\"name\":", 8);
    buf_add_json(out, request->name.text);
    buf_add(out, ",\"tags\":[", 9);
    if (answer_page(request, &page) < 0 ||
        registry_tag_list(call, request->api->registry, &request->name, &page, add_name, out,
                          &last) < 0)
        return -1;
    buf_add(out, "]}", 2);
    answer_link(request,
                str_printf(&call->arena, "/v2/" STR_FMT "/tags/list", STR_ARG(request->name.text)),
                page_parameters(request, &page), last);
    return answer_built(request, 200, "application/json");
}

int api_catalog(struct request *request)
{
    struct registry_page page;
    struct str last;
    struct buf *out = &request->answer;
    out->max = LIST_BYTES_MAX;
    buf_add(out, "{\"repositories\":[", 17);
    if (answer_page(request, &page) < 0 ||
        registry_catalog(request->call, request->api->registry, &page, add_name, out, &last) < 0)
        return -1;
    buf_add(out, "]}", 2);
    answer_link(request, STR("/v2/_catalog"), page_parameters(request, &page), last);
    return answer_built(request, 200, "application/json");
}

/* ---- Referrers ---- */

#define ARTIFACT_TYPES_MAX 16

struct referrers {
    struct arena *arena;
    struct buf *out;
    struct str types[ARTIFACT_TYPES_MAX]; /* any of them passes; none: all pass */
    size_t n_types;
    uint64_t limit;  /* at most so many descriptors */
    uint64_t n;      /* that are written */
    struct str last; /* arena: digest of the last one written */
};

static bool is_wanted(const struct referrers *list, const struct oci_referrer *referrer)
{
    for (size_t i = 0; i < list->n_types; i++)
        if (str_eq(list->types[i], referrer->artifact_type))
            return true;
    return list->n_types == 0;
}

/* Clients read the list with the limit that they have for manifests, and some do not follow Link:
 * a page ends where the next descriptor would make it larger than that, but holds one at least. */
static bool add_referrer(void *context, const struct oci_referrer *referrer)
{
    struct referrers *list = context;
    if (!is_wanted(list, referrer))
        return true;
    if (list->n == list->limit)
        return false;
    size_t before = list->out->n;
    if (list->n > 0)
        buf_add_char(list->out, ',');
    oci_referrer_format(list->out, referrer);
    if (list->n > 0 && list->out->n + 2 > OCI_REFERRERS_BYTES_MAX) {
        list->out->n = before;
        return false;
    }
    list->n++;
    list->last = str_dup(list->arena, referrer->digest);
    return true;
}

static int read_filters(struct request *request, struct referrers *list, struct buf *parameters)
{
    struct call *call = request->call;
    struct str query = request->x->query;
    for (;;) {
        struct str before = query;
        struct str name;
        struct str value;
        bool more;
        if (http_query_next(call, &query, &name, &value, &more) < 0)
            return -1;
        if (!more)
            return 0;
        if (!str_eq(name, STR("artifactType")))
            continue;
        if (list->n_types == ARTIFACT_TYPES_MAX)
            return err_set(&call->err, ERR_INVALID, "more than %d artifact types to filter by",
                           ARTIFACT_TYPES_MAX);
        list->types[list->n_types++] = value;
        buf_add_str(parameters, str_cut(&before, '&')); /* as the client encoded it */
        buf_add_char(parameters, '&');
    }
}

int api_referrer_list(struct request *request)
{
    struct call *call = request->call;
    struct oci_digest subject;
    struct registry_page page;
    struct referrers list = {.arena = &call->arena, .out = &request->answer};
    auto_buf parameters = BUF_INIT(32768);
    if (oci_digest_parse(request->item, &subject, &call->err) < 0 ||
        answer_page(request, &page) < 0 || read_filters(request, &list, &parameters) < 0)
        return -1;
    list.limit = page.limit > 0 ? page.limit : 1;
    buf_add_str(&parameters, page_parameters(request, &page));

    /* One descriptor may hold the annotations of a whole manifest. */
    list.out->max = LIST_BYTES_MAX;
    buf_printf(list.out, "{\"schemaVersion\":2,\"mediaType\":\"%s\",\"manifests\":[",
               OCI_MEDIA_TYPE_INDEX);
    bool stopped;
    if (registry_referrer_list(call, request->api->registry, &request->name, &subject, page.last,
                               add_referrer, &list, &stopped) < 0)
        return -1;
    buf_add(list.out, "]}", 2);
    if (list.n_types > 0)
        http_respond_header(request->x, "OCI-Filters-Applied", "artifactType");
    if (stopped)
        answer_link(request,
                    str_printf(&call->arena, "/v2/" STR_FMT "/referrers/" STR_FMT,
                               STR_ARG(request->name.text), STR_ARG(request->item)),
                    buf_str(&parameters), list.last);
    return answer_built(request, 200, OCI_MEDIA_TYPE_INDEX);
}
