/* Two lists in the same order, one of each side, walked side by side: what only the source has is
 * put, what only the target has is removed, what differs is replaced. */
#include "transfer/transfer_int.h"

/* Contents of manifests that are put in one transaction. */
#define BATCH_BYTES ((size_t)8 * 1024 * 1024)

/* ---- A list of one side, read page by page ---- */

struct cursor {
    struct side *side;
    enum entry_kind kind;
    int64_t repository; /* -1: not there, the list is empty */
    struct arena arena; /* of the page: a long list takes little memory */
    struct entry *page; /* owned; PAGE of them */
    size_t n;
    size_t at;
    bool last; /* there is no page after this one */
    struct key after;
};

static void cursor_done(struct cursor *cursor)
{
    free(cursor->page);
    arena_done(&cursor->arena);
}
#define auto_cursor __attribute__((cleanup(cursor_done))) struct cursor

static int list(struct cursor *cursor)
{
    struct side *side = cursor->side;
    const struct meta_page page = {cursor->repository, key_str(&cursor->after), PAGE};
    if (side_read(side) < 0)
        return -1;
    int done = side->kind->list(side, cursor->kind, &page, cursor->page, &cursor->n);
    side_read_end(side);
    return done;
}

static int read_page(struct cursor *cursor)
{
    struct call *call = &cursor->side->call;
    struct arena outer = call->arena;
    if (cursor->page == NULL)
        cursor->page = mem_alloc(PAGE * sizeof(*cursor->page));
    arena_done(&cursor->arena);
    call->arena = (struct arena){0};
    int done = list(cursor);
    cursor->arena = call->arena;
    call->arena = outer;
    if (done < 0)
        return -1;
    cursor->at = 0;
    cursor->last = cursor->n < PAGE;
    return cursor->n > 0 ? key_set(&cursor->after, cursor->page[cursor->n - 1].key, &call->err) : 0;
}

/* *ret NULL at the end. */
static int cursor_peek(struct cursor *cursor, const struct entry **ret, struct err *err)
{
    *ret = NULL;
    if (cursor->repository < 0)
        return 0;
    if ((cursor->page == NULL || (cursor->at == cursor->n && !cursor->last)) &&
        read_page(cursor) < 0)
        return side_failed(cursor->side, err);
    if (cursor->at < cursor->n)
        *ret = &cursor->page[cursor->at];
    return 0;
}

/* ---- What is to be changed, in one transaction ---- */

enum change_kind { CHANGE_PUT, CHANGE_REPLACE, CHANGE_REMOVE };

struct change {
    enum change_kind kind;
    bool is_repository; /* itself: entry has its name and the time when it was made */
    enum entry_kind entry_kind;
    struct entry entry; /* its id is the target's, where that has it */
    size_t repository;  /* in the batch */
};

/* Of as many repositories as it takes: most are small, and a transaction costs a sync. */
struct batch {
    struct work *work;
    struct arena arena;
    struct change changes[PAGE];
    size_t n;
    size_t bytes;
    int64_t repositories[PAGE + 1]; /* of the target; -1: to be made first. The last is at hand */
    size_t n_repositories;
    enum entry_kind kind; /* at hand */
    bool replaces_manifests;
};

static void batch_clear(struct batch *batch)
{
    if (batch->n_repositories > 1) {
        batch->repositories[0] = batch->repositories[batch->n_repositories - 1];
        batch->n_repositories = 1;
    }
    batch->n = 0;
    batch->bytes = 0;
    batch->replaces_manifests = false;
    arena_done(&batch->arena);
}

static void batch_done(struct batch **batch)
{
    batch_clear(*batch);
    free(*batch);
}
#define auto_batch __attribute__((cleanup(batch_done))) struct batch *

/* What follows is about this one. */
static void begin_repository(struct batch *batch, int64_t id)
{
    size_t n = batch->n_repositories;
    bool is_used = n > 0 && batch->n > 0 && batch->changes[batch->n - 1].repository == n - 1;
    if (n == 0 || is_used)
        batch->n_repositories = ++n;
    batch->repositories[n - 1] = id;
}

static int64_t repository_at_hand(const struct batch *batch)
{
    return batch->repositories[batch->n_repositories - 1];
}

static int apply_to_repository(struct side *to, const struct change *change, int64_t *id)
{
    const struct meta_repository_row row = {.name = change->entry.key,
                                            .created_at = change->entry.at};
    return change->kind == CHANGE_PUT ? to->kind->repository_put(to, &row, id)
                                      : to->kind->repository_remove(to, *id);
}

static int apply_to_entry(struct side *to, const struct change *change, int64_t repository)
{
    if (change->kind != CHANGE_PUT &&
        to->kind->remove(to, change->entry_kind, repository, &change->entry) < 0)
        return -1;
    return change->kind != CHANGE_REMOVE
               ? to->kind->put(to, change->entry_kind, repository, &change->entry)
               : 0;
}

static int apply(struct call *call, void *context)
{
    struct batch *batch = context;
    struct side *to = batch->work->to;
    require(call == &to->call);
    for (size_t i = 0; i < batch->n; i++) {
        const struct change *change = &batch->changes[i];
        int64_t *repository = &batch->repositories[change->repository];
        int done = change->is_repository ? apply_to_repository(to, change, repository)
                                         : apply_to_entry(to, change, *repository);
        if (done < 0)
            return -1;
    }
    return 0;
}

static void count(struct batch *batch)
{
    struct transfer_counts *counts = &batch->work->counts;
    for (size_t i = 0; i < batch->n; i++) {
        const struct change *change = &batch->changes[i];
        bool put = !change->is_repository && change->kind != CHANGE_REMOVE;
        counts->removed += !change->is_repository && change->kind == CHANGE_REMOVE;
        counts->manifests += put && change->entry_kind == ENTRY_MANIFEST;
        counts->tags += put && change->entry_kind == ENTRY_TAG;
    }
}

static bool needs_bytes(const struct change *change)
{
    return !change->is_repository && change->entry_kind == ENTRY_LINK &&
           change->kind != CHANGE_REMOVE;
}

/* Its place among the first n, or n. */
static size_t find_blob(const struct entry *blobs, size_t n, struct str digest)
{
    size_t i = 0;
    while (i < n && !str_eq(blobs[i].key, digest))
        i++;
    return i;
}

/* Sees to the bytes of links that are put, once for all repositories; those that cannot be had are
 * left out. */
static int bring_bytes(struct batch *batch, struct err *err)
{
    struct entry blobs[PAGE];
    bool there[PAGE];
    size_t n = 0;
    for (size_t i = 0; i < batch->n; i++)
        if (needs_bytes(&batch->changes[i]) &&
            find_blob(blobs, n, batch->changes[i].entry.key) == n)
            blobs[n++] = batch->changes[i].entry;
    if (n == 0)
        return 0;
    if (bytes_copy(batch->work, blobs, n, there, err) < 0)
        return -1;
    size_t kept = 0;
    for (size_t i = 0; i < batch->n; i++)
        if (!needs_bytes(&batch->changes[i]) ||
            there[find_blob(blobs, n, batch->changes[i].entry.key)])
            batch->changes[kept++] = batch->changes[i];
    batch->n = kept;
    return 0;
}

static int flush(struct batch *batch, struct err *err)
{
    struct side *to = batch->work->to;
    if (batch->work->bytes_first && bring_bytes(batch, err) < 0)
        return -1;
    if (work_stops(batch->work)) /* then bytes are missing that could be had */
        return work_stopped(err);
    if (batch->n > 0 && db_transact(&to->call, to->db, apply, batch) < 0)
        return side_failed(to, err);
    crash_point("transfer.applied");
    arena_done(&to->call.arena);
    count(batch);
    batch_clear(batch);
    return 0;
}

/* In the batch's arena are the texts of `entry`. */
static int add_change(struct batch *batch, const struct change *change, struct err *err)
{
    struct change *added = &batch->changes[batch->n++];
    *added = *change;
    added->repository = batch->n_repositories - 1;
    batch->bytes += added->entry.content.n;
    batch->replaces_manifests |= !added->is_repository && added->entry_kind == ENTRY_MANIFEST &&
                                 added->kind == CHANGE_REPLACE;
    return batch->n == PAGE || batch->bytes >= BATCH_BYTES ? flush(batch, err) : 0;
}

/* ---- One entry that differs ---- */

static const char *const kind_names[] = {
    [ENTRY_LINK] = "blob", [ENTRY_MANIFEST] = "manifest", [ENTRY_TAG] = "tag"};

static void tell(struct batch *batch, const struct entry *entry, const char *what)
{
    work_trouble(batch->work, "%s " STR_FMT " of \"" STR_FMT "\" %s", kind_names[batch->kind],
                 STR_ARG(entry->key), STR_ARG(key_str(&batch->work->repository)), what);
}

static const char *difference(bool source_has, bool target_has)
{
    if (!target_has)
        return "is missing in the copy";
    return source_has ? "differs in the copy" : "is only in the copy";
}

/* A manifest that is not what its row says would break more than itself. */
static bool is_sound(struct batch *batch, const struct entry *entry, struct str content)
{
    auto_arena arena = {0};
    struct err err;
    struct oci_digest digest;
    struct oci_manifest manifest;
    if (oci_digest_parse(entry->key, &digest, &err) == 0) {
        struct oci_digest actual = oci_digest_of(digest.algorithm, content);
        if (!oci_digest_eq(&actual, &digest))
            (void)err_set(&err, ERR_CORRUPT, "its bytes are not what its digest says");
        else if (!batch->work->bytes_first ||
                 oci_manifest_parse(&arena, entry->text, content, &manifest, &err) == 0)
            return true;
    }
    auto_buf text = BUF_INIT(512);
    buf_printf(&text, "is left out: %s", err.say);
    tell(batch, entry, text.p);
    return false;
}

/* Into the batch's arena. *ret_found false: it was deleted meanwhile. */
static int read_content(struct batch *batch, int64_t id, struct str *ret, bool *ret_found)
{
    struct side *from = batch->work->from;
    struct arena outer = from->call.arena;
    if (side_read(from) < 0)
        return -1;
    from->call.arena = batch->arena;
    int done = from->kind->content(from, id, ret, ret_found);
    batch->arena = from->call.arena;
    from->call.arena = outer;
    side_read_end(from);
    return done;
}

/* entry: of the source, or the one that is removed. target_id: of the target's row, if it has one.
 */
static int change_entry(struct batch *batch, enum change_kind kind, const struct entry *entry,
                        int64_t target_id, struct err *err)
{
    struct change change = {.kind = kind, .entry_kind = batch->kind, .entry = *entry};
    change.entry.id = target_id;
    change.entry.key = str_dup(&batch->arena, entry->key);
    change.entry.text = str_dup(&batch->arena, entry->text);
    if (batch->kind == ENTRY_MANIFEST && kind != CHANGE_REMOVE) {
        bool found;
        if (read_content(batch, entry->id, &change.entry.content, &found) < 0)
            return side_failed(batch->work->from, err);
        if (!found || !is_sound(batch, entry, change.entry.content))
            return 0;
    }
    return add_change(batch, &change, err);
}

/* Of two entries with the same key. */
static bool is_same(const struct batch *batch, const struct entry *a, const struct entry *b)
{
    if (a->size != b->size || a->at.us != b->at.us)
        return false;
    /* Where a registry has the bytes is its own business. */
    bool own_text = batch->kind == ENTRY_LINK && !batch->work->to->kind->names_places;
    return own_text || str_eq(a->text, b->text);
}

/* The next entries of both, of which either may be NULL. order: below, at or above 0, when only the
 * source has it, both have it, only the target has it. */
static int diff_entry(struct batch *batch, const struct entry *source, const struct entry *target,
                      int order, struct err *err)
{
    const struct entry *entry = order <= 0 ? source : target;
    if (order == 0 && is_same(batch, source, target))
        return 0;
    if (batch->work->compare) {
        tell(batch, entry, difference(order <= 0, order >= 0));
        return 0;
    }
    enum change_kind kind = order < 0 ? CHANGE_PUT : order > 0 ? CHANGE_REMOVE : CHANGE_REPLACE;
    return change_entry(batch, kind, entry, order >= 0 ? target->id : 0, err);
}

static int diff_kind(struct batch *batch, int64_t source_repository, struct err *err)
{
    struct work *work = batch->work;
    auto_cursor source = {.side = work->from, .kind = batch->kind, .repository = source_repository};
    auto_cursor target = {
        .side = work->to, .kind = batch->kind, .repository = repository_at_hand(batch)};
    while (!work_stops(work)) {
        const struct entry *a;
        const struct entry *b;
        if (cursor_peek(&source, &a, err) < 0 || cursor_peek(&target, &b, err) < 0)
            return -1;
        if (a == NULL && b == NULL)
            break;
        int order = a == NULL ? 1 : b == NULL ? -1 : str_cmp(a->key, b->key);
        source.at += order <= 0;
        target.at += order >= 0;
        if (diff_entry(batch, a, b, order, err) < 0)
            return -1;
    }
    return 0;
}

/* ---- Repositories ---- */

/* The repositories of one side, one by one. */
struct walk {
    struct side *side;
    struct meta_repository_row row; /* its name is borrowed from `name` */
    struct key name;
    bool found;
};

static int walk_next(struct walk *walk, struct err *err)
{
    struct side *side = walk->side;
    arena_done(&side->call.arena);
    if (side_read(side) < 0)
        return side_failed(side, err);
    int done = side->kind->repository_next(side, key_str(&walk->name), &walk->row, &walk->found);
    side_read_end(side);
    if (done < 0)
        return side_failed(side, err);
    if (!walk->found)
        return 0;
    if (key_set(&walk->name, walk->row.name, err) < 0)
        return -1;
    walk->row.name = key_str(&walk->name);
    return 0;
}

/* source: -1, when it has none. */
static int diff_entries(struct batch *batch, int64_t source, struct err *err)
{
    for (int kind = 0; kind < ENTRY_KINDS && !work_stops(batch->work); kind++) {
        batch->kind = (enum entry_kind)kind;
        /* With a manifest that is replaced its tags go: they are looked at afterwards. */
        if (batch->kind == ENTRY_TAG && batch->replaces_manifests && flush(batch, err) < 0)
            return -1;
        if (diff_kind(batch, source, err) < 0)
            return -1;
    }
    return 0;
}

static int remove_repository(struct batch *batch, const struct meta_repository_row *target,
                             struct err *err)
{
    const struct change change = {.kind = CHANGE_REMOVE, .is_repository = true};
    begin_repository(batch, target->id);
    if (diff_entries(batch, /* source= */ -1, err) < 0)
        return -1;
    return work_stops(batch->work) ? work_stopped(err) : add_change(batch, &change, err);
}

/* target: NULL, when it is not there. */
static int copy_repository(struct batch *batch, const struct meta_repository_row *source,
                           const struct meta_repository_row *target, struct err *err)
{
    begin_repository(batch, target != NULL ? target->id : -1);
    const struct change change = {
        .kind = CHANGE_PUT,
        .is_repository = true,
        .entry = {.key = str_dup(&batch->arena, source->name), .at = source->created_at}};
    if (target == NULL && add_change(batch, &change, err) < 0)
        return -1;
    return diff_entries(batch, source->id, err);
}

static int compare_repository(struct batch *batch, const struct meta_repository_row *source,
                              const struct meta_repository_row *target, bool same, struct err *err)
{
    struct work *work = batch->work;
    if (!same)
        work_trouble(work, "repository \"" STR_FMT "\" %s", STR_ARG(key_str(&work->repository)),
                     difference(source != NULL, target != NULL));
    if (source == NULL || target == NULL)
        return 0;
    begin_repository(batch, target->id);
    return diff_entries(batch, source->id, err);
}

/* The one at hand. Either may be NULL, when that side does not have it. */
static int diff_repository(struct batch *batch, const struct meta_repository_row *source,
                           const struct meta_repository_row *target, struct err *err)
{
    struct work *work = batch->work;
    /* Deleted and made again, it is another one. */
    bool same = source != NULL && target != NULL && source->created_at.us == target->created_at.us;
    work->counts.repositories += source != NULL;
    if (work->compare)
        return compare_repository(batch, source, target, same, err);
    if (target != NULL && !same && remove_repository(batch, target, err) < 0)
        return -1;
    return source != NULL ? copy_repository(batch, source, same ? target : NULL, err) : 0;
}

int diff_all(struct work *work, uint64_t total, struct err *err)
{
    struct walk source = {.side = work->from};
    struct walk target = {.side = work->to};
    auto_batch batch = mem_zalloc(sizeof(*batch));
    batch->work = work;
    if (walk_next(&source, err) < 0 || walk_next(&target, err) < 0)
        return -1;
    while (!work_stops(work) && (source.found || target.found)) {
        int order = !source.found   ? 1
                    : !target.found ? -1
                                    : str_cmp(source.row.name, target.row.name);
        struct str name = order <= 0 ? source.row.name : target.row.name;
        if (key_set(&work->repository, name, err) < 0 ||
            diff_repository(batch, order <= 0 ? &source.row : NULL, order >= 0 ? &target.row : NULL,
                            err) < 0 ||
            (order <= 0 && walk_next(&source, err) < 0) ||
            (order >= 0 && walk_next(&target, err) < 0))
            return -1;
        work_progress(work, "repositories", work->counts.repositories, total);
    }
    return flush(batch, err);
}
