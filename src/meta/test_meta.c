/* What pushes ask of the tables. An argument is a pattern of test names. */
#include "meta/test_meta_int.h"

#define NAME(text) (&(const struct oci_name){STR(text)})
#define AT ((struct wall_us){1000})

static struct tables *begin(void **state)
{
    struct tables *f = *state;
    if (f->db == NULL)
        skip();
    OK(&f->call, db_write(f->db, &f->call.db, &f->call.err));
    return f;
}

static void commit(struct tables *f)
{
    OK(&f->call, db_commit(TAKE(f->call.db), &f->call.err));
}

/* And begins again. */
static void commit_and_go_on(struct tables *f)
{
    commit(f);
    OK(&f->call, db_write(f->db, &f->call.db, &f->call.err));
}

static int64_t ensure(struct tables *f, const struct oci_name *name)
{
    int64_t id;
    OK(&f->call, meta_repository_ensure(&f->call, name, AT, &id));
    return id;
}

static struct oci_digest digest_of(struct tables *f, size_t number)
{
    return oci_digest_of(HASH_SHA256, str_printf(&f->call.arena, "content %zu", number));
}

static struct meta_blob adopt_into(struct tables *f, int64_t repository, size_t number,
                                   struct str location)
{
    struct oci_digest digest = digest_of(f, number);
    struct meta_blob blob;
    OK(&f->call, meta_blob_adopt_into(&f->call, repository, &digest, number, location, AT, &blob));
    return blob;
}

static enum meta_found find_blob(struct tables *f, const struct oci_name *name, size_t number,
                                 struct meta_blob *ret)
{
    struct oci_digest digest = digest_of(f, number);
    enum meta_found found;
    OK(&f->call, meta_blob_find(&f->call, name, &digest, ret, &found));
    return found;
}

static void a_blob_is_where_it_was_adopted(void **state)
{
    struct tables *f = begin(state);
    int64_t here = ensure(f, NAME("here"));
    int64_t there = ensure(f, NAME("there"));
    struct meta_blob first = adopt_into(f, here, 7, STR("first"));
    struct meta_blob blob;
    assert_int_equal(find_blob(f, NAME("here"), 7, &blob), META_FOUND);
    assert_int_equal(blob.id, first.id);
    assert_int_equal(blob.size, 7);
    assert_true(str_eq(blob.location, STR("first")));
    assert_int_equal(find_blob(f, NAME("there"), 7, &blob), META_NOTHING); /* only elsewhere */
    assert_int_equal(find_blob(f, NAME("here"), 8, &blob), META_NOTHING);
    assert_int_equal(find_blob(f, NAME("nowhere"), 7, &blob), META_NO_REPOSITORY);
    commit_and_go_on(f);

    /* Who comes second is told where it is. */
    for (int times = 0; times < 2; times++) {
        blob = adopt_into(f, there, 7, STR("second"));
        assert_int_equal(blob.id, first.id);
        assert_true(str_eq(blob.location, STR("first")));
        assert_int_equal(find_blob(f, NAME("there"), 7, &blob), META_FOUND);
    }
    commit(f);
}

static enum meta_found find_manifest(struct tables *f, const struct oci_name *name,
                                     const struct oci_reference *reference,
                                     struct meta_manifest *ret)
{
    enum meta_found found;
    OK(&f->call,
       meta_manifest_find(&f->call, name, reference, /* want_content= */ true, ret, &found));
    return found;
}

static void a_manifest_is_found_by_tag_and_by_digest(void **state)
{
    struct tables *f = begin(state);
    int64_t here = ensure(f, NAME("here"));
    (void)ensure(f, NAME("there"));
    const struct oci_manifest manifest = {.media_type = STR("type")};
    struct oci_reference by_digest = {.is_digest = true, .digest = digest_of(f, 1)};
    struct oci_reference by_tag = {.tag = {STR("v1")}};
    struct meta_manifest found;
    int64_t id;
    int64_t again;
    OK(&f->call,
       meta_manifest_put(&f->call, here, &by_digest.digest, &manifest, STR("bytes"), AT, &id));
    assert_int_equal(find_manifest(f, NAME("here"), &by_tag, &found), META_NOTHING);
    OK(&f->call, meta_tag_set(&f->call, here, &by_tag.tag, id, AT));
    commit_and_go_on(f);
    OK(&f->call,
       meta_manifest_put(&f->call, here, &by_digest.digest, &manifest, STR("?"), AT, &again));
    assert_int_equal(again, id);
    for (int tagged = 0; tagged < 2; tagged++) {
        const struct oci_reference *reference = tagged ? &by_tag : &by_digest;
        assert_int_equal(find_manifest(f, NAME("here"), reference, &found), META_FOUND);
        assert_int_equal(found.id, id);
        assert_true(str_eq(found.content, STR("bytes")));
        assert_int_equal(find_manifest(f, NAME("there"), reference, &found), META_NOTHING);
        assert_int_equal(find_manifest(f, NAME("nowhere"), reference, &found), META_NO_REPOSITORY);
    }
    commit(f);
}

/* More than a statement can have parameters. Of each five: a blob that is linked, one that is only
 * elsewhere, a manifest, both, and nothing. */
#define N_NEEDS ((size_t)1000)

static void fill_needs(struct tables *f, int64_t here, int64_t there,
                       struct oci_descriptor needs[N_NEEDS])
{
    const struct oci_manifest empty = {.media_type = STR("type")};
    for (size_t i = 0; i < N_NEEDS; i++) {
        struct oci_digest digest = digest_of(f, i);
        struct str content = str_printf(&f->call.arena, "content %zu", i);
        int64_t unused;
        needs[i] = (struct oci_descriptor){.digest = digest};
        if (i % 5 == 0 || i % 5 == 3)
            (void)adopt_into(f, here, i, STR("place"));
        if (i % 5 == 1)
            (void)adopt_into(f, there, i, STR("place"));
        if (i % 5 == 2 || i % 5 == 3)
            OK(&f->call, meta_manifest_put(&f->call, here, &digest, &empty, content, AT, &unused));
    }
}

static void assert_need(struct tables *f, const struct meta_need *need)
{
    size_t i = 0;
    for (; i < N_NEEDS; i++) {
        struct oci_digest digest = digest_of(f, i);
        if (str_eq(oci_digest_text(&f->call.arena, &digest), need->digest))
            break;
    }
    assert_true(i < N_NEEDS);
    assert_int_equal(need->is_blob, i % 5 == 0 || i % 5 == 3);
    assert_int_equal(need->is_manifest, i % 5 == 2 || i % 5 == 3);
    if (need->is_blob)
        assert_int_equal(need->blob_size, i);
    if (need->is_manifest)
        assert_int_equal(need->manifest_size, str_printf(&f->call.arena, "content %zu", i).n);
}

static void what_a_manifest_needs_is_looked_for_at_once(void **state)
{
    struct tables *f = begin(state);
    static struct oci_descriptor wanted[N_NEEDS];
    static struct meta_need needs[N_NEEDS];
    int64_t here = ensure(f, NAME("here"));
    fill_needs(f, here, ensure(f, NAME("there")), wanted);
    const struct oci_manifest manifest = {
        .media_type = STR("type"),
        .references = wanted,
        .n_references = N_NEEDS - 10,
        .foreign = wanted + N_NEEDS - 20, /* some are both */
        .n_foreign = 20,
    };
    struct oci_digest digest = digest_of(f, N_NEEDS);
    for (int times = 0; times < 2; times++) {
        int64_t id;
        size_t n;
        OK(&f->call, meta_manifest_put(&f->call, here, &digest, &manifest, STR("bytes"), AT, &id));
        OK(&f->call, meta_need_list(&f->call, here, id, N_NEEDS, needs, &n));
        assert_int_equal(n, N_NEEDS);
        for (size_t i = 0; i < n; i++) {
            if (i % 50 == 0)
                assert_need(f, &needs[i]);
            assert_true(i == 0 || str_cmp(needs[i - 1].digest, needs[i].digest) < 0);
        }
        OK(&f->call, meta_need_list(&f->call, here, id, 3, needs, &n));
        assert_int_equal(n, 3);
        commit_and_go_on(f);
    }
    commit(f);
}

static bool insert_upload(struct tables *f, const struct oci_name *name, struct str id)
{
    bool found;
    OK(&f->call, meta_upload_insert(&f->call, name, id, STR("state"), &found));
    return found;
}

static bool hold(struct tables *f, struct str id, struct str by, int64_t now)
{
    struct meta_upload row;
    bool held;
    OK(&f->call, meta_upload_hold(&f->call, NAME("here"), id, by, (struct wall_us){now},
                                  (struct wall_us){now + 10}, &row, &held));
    return held;
}

static void an_upload_is_held_by_one(void **state)
{
    struct tables *f = begin(state);
    assert_false(insert_upload(f, NAME("here"), STR("id")));
    bool there;
    OK(&f->call, meta_upload_exists(&f->call, STR("id"), &there));
    assert_false(there);
    (void)ensure(f, NAME("here"));
    assert_true(insert_upload(f, NAME("here"), STR("id")));

    assert_true(hold(f, STR("id"), STR("one"), 100));
    assert_false(hold(f, STR("id"), STR("two"), 105));
    assert_true(hold(f, STR("id"), STR("one"), 105)); /* he may have missed that he has it */
    assert_false(hold(f, STR("id"), STR("two"), 112));
    assert_true(hold(f, STR("id"), STR("two"), 116));
    assert_false(hold(f, STR("id"), STR("one"), 117));
    OK(&f->call, meta_upload_release(&f->call, STR("id"), STR("one"))); /* is not his */
    assert_false(hold(f, STR("id"), STR("one"), 118));
    OK(&f->call, meta_upload_release(&f->call, STR("id"), STR("two")));
    assert_true(hold(f, STR("id"), STR("one"), 119));
    assert_false(hold(f, STR("other"), STR("one"), 119));
    commit(f);
}

/* ---- Databases ---- */

static int setup_sqlite(void **state)
{
    return tables_setup(state, sizeof(struct tables), /* postgres= */ false, NULL);
}

static int setup_postgres(void **state)
{
    return tables_setup(state, sizeof(struct tables), /* postgres= */ true, NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        ON_BOTH(a_blob_is_where_it_was_adopted),
        ON_BOTH(a_manifest_is_found_by_tag_and_by_digest),
        ON_BOTH(what_a_manifest_needs_is_looked_for_at_once),
        ON_BOTH(an_upload_is_held_by_one),
    };
    if (argc == 2)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests_name("meta", tests, NULL, NULL);
}
