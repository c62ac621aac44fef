/* A registry as one side of a copy. */
#include "transfer/transfer_int.h"

static int repository_next(struct side *side, struct str after, struct meta_repository_row *ret,
                           bool *ret_found)
{
    return meta_repository_next(&side->call, after, ret, ret_found);
}

/* Most lists are a page long, and looking for the better way takes longer than the page. */
static int choose_way(struct side *side, const struct meta_page *page)
{
    if (page->after.n == 0) {
        side->links_way = LINKS_SORTED_ONCE;
        return 0;
    }
    if (side->links_way != LINKS_SORTED_ONCE)
        return 0;
    bool walk;
    if (meta_link_prefer_walk(&side->call, page, &walk) < 0)
        return -1;
    side->links_way = walk ? LINKS_WALKED : LINKS_SORTED;
    return 0;
}

static int list_links(struct side *side, const struct meta_page *page, struct entry *ret,
                      size_t *ret_n)
{
    struct meta_link_row rows[PAGE];
    require(page->limit <= PAGE);
    if (choose_way(side, page) < 0 ||
        meta_link_rows(&side->call, page, side->links_way == LINKS_WALKED, rows, ret_n) < 0)
        return -1;
    for (size_t i = 0; i < *ret_n; i++)
        ret[i] = (struct entry){.key = rows[i].digest,
                                .text = rows[i].location,
                                .size = rows[i].size,
                                .at = rows[i].linked_at,
                                .made = rows[i].created_at};
    return 0;
}

static int list_manifests(struct call *call, const struct meta_page *page, struct entry *ret,
                          size_t *ret_n)
{
    struct meta_manifest_head rows[PAGE];
    require(page->limit <= PAGE);
    if (meta_manifest_heads(call, page, rows, ret_n) < 0)
        return -1;
    for (size_t i = 0; i < *ret_n; i++)
        ret[i] = (struct entry){.key = rows[i].digest,
                                .text = rows[i].media_type,
                                .size = rows[i].size,
                                .id = rows[i].id,
                                .at = rows[i].pushed_at};
    return 0;
}

static int list_tags(struct call *call, const struct meta_page *page, struct entry *ret,
                     size_t *ret_n)
{
    struct meta_tag_row rows[PAGE];
    require(page->limit <= PAGE);
    if (meta_tag_rows(call, page, rows, ret_n) < 0)
        return -1;
    for (size_t i = 0; i < *ret_n; i++)
        ret[i] =
            (struct entry){.key = rows[i].name, .text = rows[i].digest, .at = rows[i].updated_at};
    return 0;
}

static int list(struct side *side, enum entry_kind kind, const struct meta_page *page,
                struct entry *ret, size_t *ret_n)
{
    switch (kind) {
    case ENTRY_LINK:
        return list_links(side, page, ret, ret_n);
    case ENTRY_MANIFEST:
        return list_manifests(&side->call, page, ret, ret_n);
    case ENTRY_TAG:
        break;
    }
    return list_tags(&side->call, page, ret, ret_n);
}

static int content(struct side *side, int64_t id, struct str *ret, bool *ret_found)
{
    return meta_manifest_content(&side->call, id, ret, ret_found);
}

static int repository_put(struct side *side, const struct meta_repository_row *row, int64_t *ret_id)
{
    struct oci_name name;
    if (oci_name_parse(row->name, &name, &side->call.err) < 0)
        return -1;
    return meta_repository_ensure(&side->call, &name, row->created_at, ret_id);
}

static int repository_remove(struct side *side, int64_t id)
{
    return meta_repository_delete(&side->call, id);
}

static int put_link(struct call *call, int64_t repository, const struct entry *entry)
{
    struct oci_digest digest;
    struct meta_blob blob;
    bool found;
    if (oci_digest_parse(entry->key, &digest, &call->err) < 0 ||
        meta_blob_find_row(call, &digest, &blob, &found) < 0)
        return -1;
    if (!found) /* somebody else is at work here */
        return err_set(&call->err, ERR_CONFLICT, "blob " STR_FMT " is not in the target",
                       STR_ARG(entry->key));
    return meta_blob_link(call, repository, blob.id, entry->at);
}

static int put_manifest(struct call *call, int64_t repository, const struct entry *entry)
{
    struct oci_digest digest;
    struct oci_manifest manifest;
    int64_t id;
    if (oci_digest_parse(entry->key, &digest, &call->err) < 0 ||
        oci_manifest_parse(&call->arena, entry->text, entry->content, &manifest, &call->err) < 0)
        return -1;
    return meta_manifest_put(call, repository, &digest, &manifest, entry->content, entry->at, &id);
}

static int put_tag(struct call *call, int64_t repository, const struct entry *entry)
{
    struct oci_tag tag;
    struct oci_digest digest;
    int64_t manifest;
    bool found;
    if (oci_tag_parse(entry->key, &tag, &call->err) < 0 ||
        oci_digest_parse(entry->text, &digest, &call->err) < 0 ||
        meta_manifest_find_id(call, repository, &digest, &manifest, &found) < 0)
        return -1;
    if (!found) /* it was left out, or pushed after the list of manifests was read */
        return 0;
    return meta_tag_set(call, repository, &tag, manifest, entry->at);
}

static int put(struct side *side, enum entry_kind kind, int64_t repository,
               const struct entry *entry)
{
    switch (kind) {
    case ENTRY_LINK:
        return put_link(&side->call, repository, entry);
    case ENTRY_MANIFEST:
        return put_manifest(&side->call, repository, entry);
    case ENTRY_TAG:
        break;
    }
    return put_tag(&side->call, repository, entry);
}

static int remove_entry(struct side *side, enum entry_kind kind, int64_t repository,
                        const struct entry *entry)
{
    struct call *call = &side->call;
    struct oci_digest digest;
    struct oci_tag tag;
    struct meta_blob blob;
    bool found;
    switch (kind) {
    case ENTRY_LINK:
        if (oci_digest_parse(entry->key, &digest, &call->err) < 0 ||
            meta_blob_find_row(call, &digest, &blob, &found) < 0)
            return -1;
        return found ? meta_blob_unlink(call, repository, blob.id) : 0;
    case ENTRY_MANIFEST:
        return meta_manifest_delete(call, entry->id);
    case ENTRY_TAG:
        break;
    }
    if (oci_tag_parse(entry->key, &tag, &call->err) < 0)
        return -1;
    return meta_tag_delete(call, repository, &tag, &found);
}

static int blob_find(struct call *call, const struct oci_digest *digest, bool *ret_found)
{
    struct meta_blob blob;
    return meta_blob_find_row(call, digest, &blob, ret_found);
}

static int blob_adopt(struct call *call, const struct blob_ref *blob, struct wall_us made,
                      struct str *ret_location)
{
    struct meta_blob row;
    if (meta_blob_adopt(call, &blob->digest, blob->size, blob->location, made, &row) < 0)
        return -1;
    *ret_location = row.location;
    return 0;
}

const struct side_kind side_registry = {
    .repository_next = repository_next,
    .list = list,
    .content = content,
    .repository_put = repository_put,
    .repository_remove = repository_remove,
    .put = put,
    .remove = remove_entry,
    .blob_find = blob_find,
    .blob_adopt = blob_adopt,
};
