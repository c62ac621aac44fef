/* What copies of whole registries read. An argument is a pattern of test names. */
#include "meta/test_meta_int.h"

#define N_BLOBS 400
#define PAGE_MAX 128

struct fixture {
    struct tables tables;
    char digests[N_BLOBS][OCI_DIGEST_TEXT_MAX + 1]; /* in the order in which they were stored */
    int64_t large;                                  /* id of a repository with three of four */
    int64_t small;                                  /* with one of a hundred */
    int64_t none;
};

static bool is_large(size_t i)
{
    return i % 4 != 1;
}

static bool is_small(size_t i)
{
    return i % 100 == 3;
}

static int64_t make_repository(struct call *call, const char *text)
{
    struct oci_name name;
    int64_t id;
    assert_int_equal(oci_name_parse(str_from(text), &name, &call->err), 0);
    assert_int_equal(meta_repository_ensure(call, &name, (struct wall_us){1}, &id), 0);
    return id;
}

static int fill(struct call *call, void *context)
{
    struct fixture *f = context;
    f->large = make_repository(call, "large");
    f->small = make_repository(call, "small");
    f->none = make_repository(call, "none");
    for (size_t i = 0; i < N_BLOBS; i++) {
        struct meta_blob blob;
        const struct wall_us at = {1000 + (int64_t)i};
        struct str bytes = str_printf(&call->arena, "blob %zu", i);
        struct oci_digest digest = oci_digest_of(i % 7 == 0 ? HASH_SHA512 : HASH_SHA256, bytes);
        (void)oci_digest_format(&digest, f->digests[i]);
        if (meta_blob_adopt(call, &digest, i, STR("place"), at, &blob) < 0 ||
            (is_large(i) && meta_blob_link(call, f->large, blob.id, at) < 0) ||
            (is_small(i) && meta_blob_link(call, f->small, blob.id, at) < 0))
            return -1;
    }
    return 0;
}

/* The wanted ones' digests, sorted without a database. */
static size_t expected_links(const struct fixture *f, bool (*is_wanted)(size_t i), size_t *ret)
{
    size_t n = 0;
    for (size_t i = 0; i < N_BLOBS; i++) {
        if (!is_wanted(i))
            continue;
        size_t at = n++;
        for (; at > 0 && strcmp(f->digests[ret[at - 1]], f->digests[i]) > 0; at--)
            ret[at] = ret[at - 1];
        ret[at] = i;
    }
    return n;
}

static void assert_link(const struct fixture *f, const struct meta_link_row *row, size_t i)
{
    assert_true(str_eq(row->digest, str_from(f->digests[i])));
    assert_int_equal(row->size, i);
    assert_true(str_eq(row->location, STR("place")));
    assert_int_equal(row->created_at.us, 1000 + i);
    assert_int_equal(row->linked_at.us, 1000 + i);
}

static void assert_links(struct fixture *f, int64_t repository, bool (*is_wanted)(size_t i),
                         bool walk, size_t limit)
{
    size_t expected[N_BLOBS];
    size_t n_expected = expected_links(f, is_wanted, expected);
    struct meta_page page = {repository, STR(""), limit};
    struct meta_link_row rows[PAGE_MAX];
    size_t n = limit;
    size_t seen = 0;
    while (n == limit) {
        OK(&f->tables.call, db_read(f->tables.db, &f->tables.call.db, &f->tables.call.err));
        OK(&f->tables.call, meta_link_rows(&f->tables.call, &page, walk, rows, &n));
        db_end(TAKE(f->tables.call.db));
        assert_true(n <= limit && seen + n <= n_expected);
        for (size_t i = 0; i < n; i++)
            assert_link(f, &rows[i], expected[seen++]);
        if (n > 0)
            page.after = rows[n - 1].digest;
    }
    assert_int_equal(seen, n_expected);
}

static bool is_none(size_t i)
{
    (void)i;
    return false;
}

static struct fixture *begin(void **state)
{
    struct fixture *f = *state;
    if (f->tables.db == NULL)
        skip();
    return f;
}

static void links_come_in_the_order_of_digests_either_way(void **state)
{
    static const size_t limits[] = {1, 7, 4, PAGE_MAX};
    struct fixture *f = begin(state);
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
        for (int walk = 0; walk < 2; walk++) {
            assert_links(f, f->large, is_large, walk != 0, limits[i]);
            assert_links(f, f->small, is_small, walk != 0, limits[i]);
            assert_links(f, f->none, is_none, walk != 0, limits[i]);
        }
}

static bool prefers_walk(struct fixture *f, int64_t repository, size_t limit)
{
    const struct meta_page page = {repository, STR("sha256:"), limit};
    bool walk = false;
    OK(&f->tables.call, db_read(f->tables.db, &f->tables.call.db, &f->tables.call.err));
    OK(&f->tables.call, meta_link_prefer_walk(&f->tables.call, &page, &walk));
    db_end(TAKE(f->tables.call.db));
    return walk;
}

/* 300 links in pages of 4: 75 pages sort 150 links each on average, the walk sees 400 blobs. */
static void many_of_all_blobs_are_walked(void **state)
{
    struct fixture *f = begin(state);
    assert_true(prefers_walk(f, f->large, 4));
    assert_true(prefers_walk(f, f->large, 100));
    assert_false(prefers_walk(f, f->large, PAGE_MAX)); /* three pages */
    assert_false(prefers_walk(f, f->small, 1));
    assert_false(prefers_walk(f, f->none, 1));
}

static int delete_repository(struct call *call, void *context)
{
    const int64_t *id = context;
    return meta_repository_delete(call, *id);
}

static int make_uploads(struct call *call, void *context)
{
    struct oci_name none = {STR("none")};
    struct oci_name small = {STR("small")};
    bool found;
    (void)context;
    if (meta_upload_insert(call, &none, STR("goes"), STR("state"), &found) < 0)
        return -1;
    return meta_upload_insert(call, &small, STR("stays"), STR("state"), &found);
}

static bool has_upload(struct fixture *f, struct str id)
{
    bool found = false;
    OK(&f->tables.call, db_read(f->tables.db, &f->tables.call.db, &f->tables.call.err));
    OK(&f->tables.call, meta_upload_exists(&f->tables.call, id, &found));
    db_end(TAKE(f->tables.call.db));
    return found;
}

static bool has_repository(struct fixture *f, const char *text)
{
    struct oci_name name;
    int64_t id;
    bool found = false;
    assert_int_equal(oci_name_parse(str_from(text), &name, &f->tables.call.err), 0);
    OK(&f->tables.call, db_read(f->tables.db, &f->tables.call.db, &f->tables.call.err));
    OK(&f->tables.call, meta_repository_find(&f->tables.call, &name, &id, &found));
    db_end(TAKE(f->tables.call.db));
    return found;
}

static void a_repository_goes_with_its_uploads(void **state)
{
    struct fixture *f = begin(state);
    OK(&f->tables.call, db_transact(&f->tables.call, f->tables.db, make_uploads, f));
    OK(&f->tables.call, db_transact(&f->tables.call, f->tables.db, delete_repository, &f->none));
    assert_false(has_repository(f, "none"));
    assert_false(has_upload(f, STR("goes")));
    assert_true(has_repository(f, "small"));
    assert_true(has_upload(f, STR("stays")));
}

static void a_repository_with_links_is_not_deleted(void **state)
{
    struct fixture *f = begin(state);
    OK(&f->tables.call, db_transact(&f->tables.call, f->tables.db, make_uploads, f));
    assert_int_equal(db_transact(&f->tables.call, f->tables.db, delete_repository, &f->small), -1);
    assert_string_equal(err_kind_name(f->tables.call.err.kind), err_kind_name(ERR_CONFLICT));
    assert_true(has_repository(f, "small"));
    assert_true(has_upload(f, STR("stays"))); /* the transaction was rolled back */
}

/* ---- Databases ---- */

static int setup_sqlite(void **state)
{
    return tables_setup(state, sizeof(struct fixture), /* postgres= */ false, fill);
}

static int setup_postgres(void **state)
{
    return tables_setup(state, sizeof(struct fixture), /* postgres= */ true, fill);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(links_come_in_the_order_of_digests_either_way),
        ON_BOTH(many_of_all_blobs_are_walked),
        ON_BOTH(a_repository_goes_with_its_uploads),
        ON_BOTH(a_repository_with_links_is_not_deleted),
    };
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("meta copy", tests, NULL, NULL);
}
