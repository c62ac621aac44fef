/* Lists of objects and of multipart uploads, page by page. Keys come percent-encoded, because XML
 * cannot express each of them. */
#include "s3/s3_int.h"

#define PAGE_BYTES_MAX ((size_t)8 * 1024 * 1024)
#define MOST "1000"

/* ---- A page ---- */

static int page_failed(const char *what, struct err *err)
{
    (void)err_set(err, ERR_IO, "an answer of the object store is not understood");
    return err_why(err, "%s", what);
}

static void page_add(struct s3_page *page)
{
    if (page->n == page->capacity) {
        size_t capacity = page->capacity > 0 ? 2 * page->capacity : 64;
        struct s3_page_entry *larger = arena_alloc(page->arena, capacity * sizeof(*larger));
        if (page->n > 0)
            memcpy(larger, page->entries, page->n * sizeof(*larger));
        page->entries = larger;
        page->capacity = capacity;
    }
    page->entries[page->n++] = page->entry;
    page->entry = (struct s3_page_entry){0};
}

static int set_decoded(struct s3_page *page, struct str text, struct str *ret, struct err *err)
{
    if (!s3_decode(page->arena, text, ret))
        return page_failed("a key in a list is not encoded as was asked for", err);
    return 0;
}

static int set_time(struct str text, struct wall_us *ret, struct err *err)
{
    if (!s3_time_parse(text, ret))
        return page_failed("a time in a list is not one", err);
    return 0;
}

/* What stands below <Contents> or <Upload>. */
static int entry_element(struct s3_page *page, struct str name, struct str text, struct err *err)
{
    if (str_eq(name, STR("Key")))
        return set_decoded(page, text, &page->entry.key, err);
    if (str_eq(name, STR("UploadId")))
        page->entry.id = str_dup(page->arena, text);
    else if (str_eq(name, STR("Size")))
        return str_to_u64(text, INT64_MAX, &page->entry.size, err) < 0
                   ? page_failed("a size in a list is not one", err)
                   : 0;
    else if (str_eq(name, STR("LastModified")) || str_eq(name, STR("Initiated")))
        return set_time(text, &page->entry.time, err);
    return 0;
}

static int page_element(void *context, struct str path, struct str text, struct err *err)
{
    struct s3_page *page = context;
    struct str rest = path;
    struct str root = str_cut(&rest, '/');
    if (!str_eq(root, STR("ListBucketResult")) && !str_eq(root, STR("ListMultipartUploadsResult")))
        return page_failed("a list has another root", err);
    page->is_list = true;
    if (str_eq(rest, STR("Contents")) || str_eq(rest, STR("Upload"))) {
        page_add(page);
        return 0;
    }
    if (str_starts(rest, STR("Contents/")) || str_starts(rest, STR("Upload/"))) {
        (void)str_cut(&rest, '/');
        return entry_element(page, rest, text, err);
    }
    if (str_eq(rest, STR("IsTruncated")))
        page->truncated = str_eq_nocase(text, STR("true"));
    else if (str_eq(rest, STR("NextContinuationToken")))
        page->next_key = str_dup(page->arena, text);
    else if (str_eq(rest, STR("NextUploadIdMarker")))
        page->next_id = str_dup(page->arena, text);
    else if (str_eq(rest, STR("NextKeyMarker")))
        return set_decoded(page, text, &page->next_key, err);
    return 0;
}

int s3_page_parse(struct s3_page *page, struct str xml, struct err *err)
{
    *page = (struct s3_page){.arena = page->arena};
    if (s3_xml_parse(xml, page_element, page, err) < 0)
        return -1;
    if (page->truncated && page->next_key.n == 0)
        return page_failed("a list goes on, and does not say where", err);
    return 0;
}

static int parse(void *context, const struct fetch_answer *answer, struct err *err)
{
    return s3_page_parse(context, answer->body, err);
}

/* ---- Page after page ---- */

struct walk {
    struct s3 *s3;
    bool uploads;
    struct str under; /* with the prefix */
    struct buf key;   /* where the next page begins */
    struct buf id;
    int (*object)(void *context, const struct s3_object *object, struct err *err);
    int (*upload)(void *context, struct str key, struct str id, struct wall_us begun,
                  struct err *err);
    void *context;
};

static struct s3_request page_request(const struct walk *walk)
{
    struct s3_request request = {
        .operation = walk->uploads ? "ListMultipartUploads" : "ListObjectsV2",
        .method = "GET",
        .answer_bytes_max = PAGE_BYTES_MAX,
        .parse = parse,
    };
    s3_add_query(&request, "prefix", walk->under);
    s3_add_query(&request, "encoding-type", STR("url"));
    if (walk->uploads) {
        s3_add_query(&request, "uploads", STR(""));
        s3_add_query(&request, "max-uploads", STR(MOST));
        if (walk->key.n > 0)
            s3_add_query(&request, "key-marker", buf_str(&walk->key));
        if (walk->id.n > 0)
            s3_add_query(&request, "upload-id-marker", buf_str(&walk->id));
    } else {
        s3_add_query(&request, "list-type", STR("2"));
        s3_add_query(&request, "max-keys", STR(MOST));
        if (walk->key.n > 0)
            s3_add_query(&request, "continuation-token", buf_str(&walk->key));
    }
    return request;
}

static int tell(struct walk *walk, const struct s3_page *page, struct err *err)
{
    for (size_t i = 0; i < page->n; i++) {
        const struct s3_page_entry *entry = &page->entries[i];
        if (!str_starts(entry->key, walk->under))
            return page_failed("a list holds keys that were not asked for", err);
        struct str key = str_from_at(entry->key, strlen(walk->s3->prefix));
        if (walk->uploads) {
            if (walk->upload(walk->context, key, entry->id, entry->time, err) < 0)
                return -1;
            continue;
        }
        const struct s3_object object = {key, entry->size, entry->time};
        if (walk->object(walk->context, &object, err) < 0)
            return -1;
    }
    return 0;
}

/* *ret_more false: it was the last. */
static int next_page(struct walk *walk, struct call *call, bool *ret_more)
{
    struct s3_page page = {.arena = &call->arena};
    struct s3_request request = page_request(walk);
    request.context = &page;
    struct fetch_answer answer;
    if (s3_send(call, walk->s3, &request, &answer) < 0 || tell(walk, &page, &call->err) < 0)
        return -1;
    if (page.truncated && str_eq(page.next_key, buf_str(&walk->key)) &&
        str_eq(page.next_id, buf_str(&walk->id)))
        return page_failed("a list begins the same page again and again", &call->err);
    buf_done(&walk->key);
    buf_done(&walk->id);
    buf_add_str(&walk->key, page.next_key);
    buf_add_str(&walk->id, page.next_id);
    if (walk->key.overflow || walk->id.overflow)
        return page_failed("the marker of a list's next page is too long", &call->err);
    *ret_more = page.truncated;
    return 0;
}

static int walk_all(struct call *call, struct walk *walk, const char *under)
{
    walk->under = str_printf(&call->arena, "%s%s", walk->s3->prefix, under);
    walk->key = BUF_INIT(8192);
    walk->id = BUF_INIT(8192);
    bool more = true;
    int result = 0;
    while (result == 0 && more) {
        auto_call page; /* its memory ends with it: there may be many */
        call_init(&page);
        memcpy(page.id, call->id, sizeof(page.id));
        result = next_page(walk, &page, &more);
        if (result < 0)
            call->err = page.err;
    }
    buf_done(&walk->key);
    buf_done(&walk->id);
    return result;
}

int s3_list(struct call *call, struct s3 *s3, const char *under,
            int (*each)(void *context, const struct s3_object *object, struct err *err),
            void *context)
{
    struct walk walk = {.s3 = s3, .object = each, .context = context};
    return walk_all(call, &walk, under);
}

int s3_multipart_list(struct call *call, struct s3 *s3, const char *under,
                      int (*each)(void *context, struct str key, struct str id,
                                  struct wall_us begun, struct err *err),
                      void *context)
{
    struct walk walk = {.s3 = s3, .uploads = true, .upload = each, .context = context};
    return walk_all(call, &walk, under);
}
