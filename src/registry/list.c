#include "registry/registry_int.h"

/* Passes `limit` names on and notes whether one more would have followed. */
struct paging {
    struct arena *arena;
    registry_name_fn each;
    void *context;
    uint64_t left;
    struct str last; /* arena: the last name passed on */
    bool more;
};

static int pass_on(void *context, struct str name, struct err *err)
{
    struct paging *paging = context;
    if (paging->left == 0) {
        paging->more = true;
        return 0;
    }
    if (--paging->left == 0)
        paging->last = str_dup(paging->arena, name);
    return paging->each(paging->context, name, err);
}

static struct paging paging_start(struct call *call, const struct registry_page *page,
                                  registry_name_fn each, void *context)
{
    return (struct paging){
        .arena = &call->arena, .each = each, .context = context, .left = page->limit};
}

/* One more than the page holds, to learn whether there are more; none when it holds none. */
static int64_t rows_wanted(const struct registry_page *page)
{
    return page->limit > 0 ? (int64_t)page->limit + 1 : 0;
}

int registry_tag_list(struct call *call, struct registry *registry, const struct oci_name *name,
                      const struct registry_page *page, registry_name_fn each, void *context,
                      struct str *ret_last)
{
    auto_read held = call;
    int64_t repository;
    bool found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_repository_find(call, name, &repository, &found) < 0)
        return -1;
    if (!found)
        return err_code(&call->err, ERR_NOT_FOUND, OCI_NAME_UNKNOWN,
                        "repository \"" STR_FMT "\" is not known", STR_ARG(name->text));
    struct paging paging = paging_start(call, page, each, context);
    if (meta_tag_list(call, repository, page->last, rows_wanted(page), pass_on, &paging) < 0)
        return -1;
    *ret_last = paging.more ? paging.last : (struct str){0};
    return 0;
}

int registry_catalog(struct call *call, struct registry *registry, const struct registry_page *page,
                     registry_name_fn each, void *context, struct str *ret_last)
{
    auto_read held = call;
    struct paging paging = paging_start(call, page, each, context);
    if (registry_begin_read(call, registry) < 0 ||
        meta_repository_list(call, page->last, rows_wanted(page), pass_on, &paging) < 0)
        return -1;
    *ret_last = paging.more ? paging.last : (struct str){0};
    return 0;
}

int registry_referrer_list(struct call *call, struct registry *registry,
                           const struct oci_name *name, const struct oci_digest *subject,
                           struct str after,
                           bool (*each)(void *context, const struct oci_referrer *referrer),
                           void *context, bool *ret_stopped)
{
    auto_read held = call;
    int64_t repository;
    bool found;
    if (registry_begin_read(call, registry) < 0 ||
        meta_repository_find(call, name, &repository, &found) < 0)
        return -1;
    *ret_stopped = false;
    if (!found)
        return 0;
    return meta_referrer_list(call, repository, subject, after, each, context, ret_stopped);
}
