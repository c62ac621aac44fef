/* What both kinds of sides share, and the rules by which a registry becomes a copy of another. */
#include "transfer/transfer_int.h"

#include <stdarg.h>
#include <stdio.h>

void side_init(struct side *side, const struct side_kind *kind, struct db *db,
               struct blob_store *blobs)
{
    *side = (struct side){.kind = kind, .db = db, .blobs = blobs};
    call_init(&side->call);
}

void side_done(struct side *side)
{
    side_thaw(side);
    call_done(&side->call);
}

int side_freeze(struct side *side)
{
    struct call *call = &side->call;
    require(!side->frozen);
    if (db_read(side->db, &call->db, &call->err) < 0)
        return -1;
    side->frozen = true;
    return db_snapshot(call->db, &call->err);
}

void side_thaw(struct side *side)
{
    side->frozen = false;
    db_end(TAKE(side->call.db));
}

int side_read(struct side *side)
{
    return side->frozen ? 0 : db_read(side->db, &side->call.db, &side->call.err);
}

void side_read_end(struct side *side)
{
    if (!side->frozen)
        db_end(TAKE(side->call.db));
}

int side_failed(const struct side *side, struct err *err)
{
    *err = side->call.err;
    return -1;
}

int key_set(struct key *key, struct str text, struct err *err)
{
    if (text.n > sizeof(key->text))
        return err_set(err, ERR_CORRUPT, "a name of %zu bytes: \"" STR_FMT "…\"", text.n,
                       STR_ARG(str_first(text, 40)));
    if (text.n > 0)
        memcpy(key->text, text.p, text.n);
    key->n = text.n;
    return 0;
}

struct str key_str(const struct key *key)
{
    return (struct str){key->text, key->n};
}

/* ---- One run ---- */

bool work_stops(const struct work *work)
{
    return work->options->stop != NULL && atomic_load(work->options->stop);
}

int work_stopped(struct err *err)
{
    return err_set(err, ERR_BUSY, "it was stopped; run it again to go on");
}

void work_progress(struct work *work, const char *stage, uint64_t done, uint64_t total)
{
    auto_lock held = lock_take(&work->mutex);
    work->options->progress(work->options->context, stage, done, total);
}

void work_trouble(struct work *work, const char *fmt, ...)
{
    char text[1024];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    auto_lock held = lock_take(&work->mutex);
    work->counts.troubles++;
    work->options->trouble(work->options->context, text);
}

/* ---- May `to` become a copy? ---- */

struct claim {
    struct str source; /* identity of the registry that is copied */
    bool overwrite;
    bool in_place; /* `to` may be that registry itself */
};

static int is_empty(struct call *call, bool *ret)
{
    struct meta_repository_row row;
    bool found;
    if (meta_repository_next(call, STR(""), &row, &found) < 0)
        return -1;
    *ret = !found;
    return 0;
}

static int claim(struct call *call, void *context)
{
    const struct claim *wanted = context;
    struct str id;
    struct str origin;
    bool empty;
    if (meta_identity(call, &id, &origin) < 0 || is_empty(call, &empty) < 0)
        return -1;
    bool same = str_eq(id, wanted->source);
    if (same && !wanted->in_place)
        return err_set(&call->err, ERR_CONFLICT, "source and target are the same registry");
    if (str_eq(origin, wanted->source))
        return 0;
    if (!empty && !wanted->overwrite)
        return err_set(&call->err, ERR_CONFLICT,
                       "the target holds repositories of its own, which would be lost: %s",
                       wanted->in_place ? "restore into an empty registry, or give --overwrite"
                                        : "migrate into an empty registry");
    return same ? 0 : meta_identity_set(call, id, wanted->source);
}

int side_claim(struct side *to, struct str source, bool in_place, bool overwrite, struct err *err)
{
    struct claim wanted = {.source = source, .in_place = in_place, .overwrite = overwrite};
    if (db_transact(&to->call, to->db, claim, &wanted) < 0)
        return side_failed(to, err);
    crash_point("transfer.claimed");
    return 0;
}
