/* From registry to registry, and the comparison of two. */
#include "transfer/transfer_int.h"

static int read_source(struct side *from, struct str *ret_id, uint64_t *ret_repositories)
{
    struct call *call = &from->call;
    struct str origin;
    struct meta_totals totals;
    if (side_read(from) < 0)
        return -1;
    bool failed = meta_identity(call, ret_id, &origin) < 0 || meta_totals(call, &totals) < 0;
    side_read_end(from);
    if (failed)
        return -1;
    *ret_repositories = totals.repositories;
    return 0;
}

static int run(struct work *work, struct err *err)
{
    struct str source;
    uint64_t repositories;
    if (read_source(work->from, &source, &repositories) < 0)
        return side_failed(work->from, err);
    if (!work->compare && side_claim(work->to, source, /* in_place= */ false,
                                     /* overwrite= */ false, err) < 0)
        return -1;
    return diff_all(work, repositories, err);
}

static void side_of(struct side *side, struct registry *registry)
{
    side_init(side, &side_registry, registry_db(registry), registry_blobs(registry));
}

int transfer_migrate(struct call *call, struct registry *from, struct registry *to,
                     const struct transfer_options *options, struct transfer_counts *ret)
{
    auto_side source = {0};
    auto_side target = {0};
    side_of(&source, from);
    side_of(&target, to);
    struct work work = {.from = &source, .to = &target, .bytes_first = true, WORK_INIT(options)};
    if (run(&work, &call->err) < 0)
        return -1;
    *ret = work.counts;
    return 0;
}

/* ---- Comparison ---- */

static int read_blobs(struct side *side, int64_t *after, struct entry *ret, size_t *ret_n)
{
    struct call *call = &side->call;
    auto_mem struct meta_blob_row *rows = mem_alloc(PAGE * sizeof(*rows));
    size_t n;
    if (side_read(side) < 0)
        return -1;
    int done = meta_blob_rows(call, *after, PAGE, rows, &n);
    side_read_end(side);
    if (done < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        ret[i] = (struct entry){.key = oci_digest_text(&call->arena, &rows[i].digest),
                                .text = rows[i].location,
                                .size = rows[i].size};
    *after = n > 0 ? rows[n - 1].id : *after;
    *ret_n = n;
    return 0;
}

static int count_bytes(struct side *side, uint64_t *ret)
{
    struct meta_totals totals;
    if (side_read(side) < 0)
        return -1;
    int done = meta_totals(&side->call, &totals);
    side_read_end(side);
    if (done == 0)
        *ret = totals.blob_bytes;
    return done;
}

static int verify_blobs(struct work *work, struct err *err)
{
    struct side *to = work->to;
    if (count_bytes(to, &work->bytes_total) < 0)
        return side_failed(to, err);
    auto_mem struct entry *blobs = mem_alloc(PAGE * sizeof(*blobs));
    int64_t after = 0;
    size_t n;
    do {
        arena_done(&to->call.arena);
        if (read_blobs(to, &after, blobs, &n) < 0)
            return side_failed(to, err);
        if (bytes_verify(work, blobs, n, err) < 0)
            return -1;
    } while (n == PAGE && !work_stops(work));
    return work_stops(work) ? work_stopped(err) : 0;
}

int transfer_compare(struct call *call, struct registry *from, struct registry *to, bool deep,
                     const struct transfer_options *options, uint64_t *ret_differences)
{
    auto_side source = {0};
    auto_side target = {0};
    side_of(&source, from);
    side_of(&target, to);
    struct work work = {.from = &source, .to = &target, .compare = true, WORK_INIT(options)};
    if (run(&work, &call->err) < 0 || (deep && verify_blobs(&work, &call->err) < 0))
        return -1;
    *ret_differences = work.counts.troubles;
    return 0;
}
