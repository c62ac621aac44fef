/* Copies from registry to registry. */
#include "transfer/test_transfer_int.h"

static int try_migrate(struct lab *lab, const char *from, const char *to)
{
    struct registry *source = open_as(lab, from, REGISTRY_OBSERVE);
    struct registry *target = open_as(lab, to, REGISTRY_ALONE);
    int done = transfer_migrate(&lab->call, source, target, &lab->options, &lab->counts);
    registry_close(source);
    registry_close(target);
    return done;
}

static void migrate(struct lab *lab)
{
    OK(lab, try_migrate(lab, "from", "to"));
}

static uint64_t compare(struct lab *lab, bool deep)
{
    struct registry *source = open_as(lab, "from", REGISTRY_OBSERVE);
    struct registry *target = open_as(lab, "to", REGISTRY_ALONE);
    uint64_t differences;
    OK(lab, transfer_compare(&lab->call, source, target, deep, &lab->options, &differences));
    registry_close(source);
    registry_close(target);
    return differences;
}

/* Returns the blobs that no repository of the copy links any more. */
static unsigned assert_copied(struct lab *lab)
{
    assert_same_text(dump(lab, "from"), dump(lab, "to"));
    return assert_sound(lab, "to");
}

/* The counts of a run that found everything as it should be. */
static void assert_nothing_done(const struct lab *lab)
{
    const struct transfer_counts *counts = &lab->counts;
    assert_int_equal(counts->manifests + counts->tags + counts->blobs + counts->blob_bytes +
                         counts->present + counts->removed + counts->troubles,
                     0);
}

static struct registry *serve(struct lab *lab, const char *name)
{
    return open_as(lab, name, REGISTRY_SERVE);
}

static void make_source(struct lab *lab)
{
    struct registry *registry = serve(lab, "from");
    fill(lab, registry);
    registry_close(registry);
}

static void a_copy_has_everything(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    migrate(lab);
    assert_int_equal(assert_copied(lab), 0);
    assert_int_equal(lab->counts.repositories, 3);
    assert_int_equal(lab->counts.manifests, 6); /* v1, v2, untagged, all, signature; b of other */
    assert_int_equal(lab->counts.tags, 4);
    /* a, b, untagged and signature with two each, by another algorithm, the empty one */
    assert_int_equal(lab->counts.blobs, 10);
    assert_int_equal(lab->counts.present, 0); /* what is linked twice is brought once */
    assert_int_equal(lab->counts.troubles, 0);
    assert_int_equal(compare(lab, /* deep= */ true), 0);
}

static void a_second_run_changes_nothing(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    migrate(lab);
    const char *before = ask_sql(lab, "to/holdfast.db", "SELECT id, pushed_at FROM manifest");
    migrate(lab);
    assert_int_equal(lab->counts.repositories, 3);
    assert_nothing_done(lab);
    assert_same_text(before, ask_sql(lab, "to/holdfast.db", "SELECT id, pushed_at FROM manifest"));
    assert_copied(lab);
}

static void an_empty_registry_is_copied(void **state)
{
    struct lab *lab = *state;
    registry_close(serve(lab, "from"));
    migrate(lab);
    assert_nothing_done(lab);
    assert_copied(lab);
}

static void change_source(struct lab *lab, struct registry *registry)
{
    struct oci_digest other = oci_digest_of(HASH_SHA512, STR("by another algorithm"));
    (void)push_image(lab, registry, "new", "v1", "new");
    (void)push_image(lab, registry, "team/app", "v1", "moved"); /* the tag moves */
    delete_manifest(lab, registry, "team/app", "all");
    delete_manifest(lab, registry, "other", "latest"); /* the tag alone */
    (void)push_image(lab, registry, "other", NULL, "a");
    delete_blob(lab, registry, "team/app", &other);
    /* Deleted, its blobs too, and pushed again: the same, at another time. */
    struct oci_digest again = push_image(lab, registry, "again", "one", "again");
    delete_manifest(lab, registry, "again", digest_text(lab, &again));
    struct oci_digest layer = oci_digest_of(HASH_SHA256, STR("layer again"));
    delete_blob(lab, registry, "again", &layer);
    (void)push_image(lab, registry, "again", "one", "again");
}

static void what_changed_is_copied(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = serve(lab, "from");
    fill(lab, registry);
    (void)push_image(lab, registry, "again", "one", "again");
    registry_close(registry);
    migrate(lab);
    registry = serve(lab, "from");
    change_source(lab, registry);
    registry_close(registry);
    uint64_t differences = compare(lab, /* deep= */ false);
    assert_true(differences > 0);
    assert_int_equal(differences, lab->n_troubles);
    assert_true(was_told(lab, "repository \"new\" is missing in the copy"));
    assert_true(was_told(lab, "tag v1 of \"team/app\" differs in the copy"));
    assert_true(was_told(lab, "tag all of \"team/app\" is only in the copy"));
    assert_true(was_told(lab, "tag latest of \"other\" is only in the copy"));
    migrate(lab);
    assert_int_equal(assert_copied(lab), 1); /* the blob that was deleted */
    assert_int_equal(compare(lab, /* deep= */ true), 0);
    migrate(lab);
    assert_nothing_done(lab);
}

/* Whatever somebody did to the copy is undone. */
static void a_copy_that_was_changed_is_set_right(void **state)
{
    static const char *const changes[] = {
        "DELETE FROM tag WHERE name = 'v1'",
        "INSERT INTO tag SELECT repository_id, 'aaa', manifest_id, 1 FROM tag WHERE name = 'v1'",
        "INSERT INTO tag SELECT repository_id, 'zzz', manifest_id, 1 FROM tag WHERE name = 'v1'",
        "UPDATE tag SET updated_at = updated_at + 1",
        "UPDATE tag SET manifest_id = (SELECT max(id) FROM manifest m WHERE"
        " m.repository_id = tag.repository_id)",
        "DELETE FROM manifest WHERE digest = (SELECT min(digest) FROM manifest)",
        "DELETE FROM manifest",
        "UPDATE manifest SET media_type = 'application/vnd.oci.image.index.v1+json'",
        "UPDATE manifest SET pushed_at = 7",
        "DELETE FROM repository_blob WHERE blob_id % 2 = 0",
        "UPDATE repository_blob SET linked_at = 7",
        "INSERT OR IGNORE INTO repository_blob SELECT r.id, b.id, 1 FROM repository r, blob b",
        "INSERT INTO repository VALUES (100, 'aaa', 1), (101, 'team/appp', 1), (102, 'zzz', 1)",
        "INSERT INTO repository VALUES (100, 'foreign', 1);"
        "INSERT INTO repository_blob SELECT 100, id, 1 FROM blob;"
        "INSERT INTO manifest SELECT id + 100, 100, digest, media_type, artifact_type, subject,"
        " annotations, pushed_at, size, content FROM manifest WHERE repository_id = 1;"
        "INSERT INTO manifest_reference SELECT 100, digest, manifest_id + 100"
        " FROM manifest_reference WHERE repository_id = 1;"
        "INSERT INTO tag SELECT 100, name, manifest_id + 100, updated_at FROM tag"
        " WHERE repository_id = 1;"
        "INSERT INTO upload (id, repository_id, received, hash_state, started_at, touched_at)"
        " VALUES ('u', 100, 0, x'', 1, 1)",
        "UPDATE repository SET created_at = 7 WHERE name = 'team/app'",
        "DELETE FROM tag; DELETE FROM manifest; DELETE FROM repository_blob;"
        "DELETE FROM repository",
    };
    struct lab *lab = *state;
    make_source(lab);
    migrate(lab);
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        forget_troubles(lab);
        run_sql(lab, "to/holdfast.db", changes[i]);
        if (compare(lab, /* deep= */ false) == 0)
            fail_msg("not seen: %s", changes[i]);
        migrate(lab);
        assert_copied(lab);
        assert_int_equal(lab->counts.troubles, 0);
        assert_int_equal(lab->counts.blobs, 0);
        migrate(lab);
        assert_nothing_done(lab);
    }
}

/* ---- Pages ---- */

static void lists_of_every_length_are_copied(void **state)
{
    static const unsigned lengths[] = {0, 1, 127, 128, 129, 255, 256, 257};
    struct lab *lab = *state;
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        fill_many(lab, "from", lengths[i], 1);
        migrate(lab);
        assert_copied(lab);
        assert_int_equal(compare(lab, /* deep= */ true), 0);
        migrate(lab);
        assert_nothing_done(lab);
    }
    assert_int_equal(lab->n_troubles, 0);
}

/* The target has what the source has not, in between, before and behind. */
static void lists_that_differ_everywhere_are_copied(void **state)
{
    struct lab *lab = *state;
    fill_many(lab, "from", 640, 1);
    migrate(lab);
    run_sql(lab, "from/holdfast.db",
            "DELETE FROM repository_blob WHERE blob_id % 3 = 0;"
            "DELETE FROM manifest WHERE id % 3 = 1; DELETE FROM tag WHERE manifest_id % 5 = 1");
    run_sql(lab, "to/holdfast.db",
            "DELETE FROM repository_blob WHERE blob_id % 7 = 2;"
            "DELETE FROM manifest WHERE id % 4 = 3; DELETE FROM tag WHERE manifest_id % 6 = 2");
    migrate(lab);
    assert_copied(lab);
    assert_int_equal(lab->counts.blobs, 0);
    migrate(lab);
    assert_nothing_done(lab);
}

static int make_repositories(struct call *call, void *context)
{
    const unsigned *n = context;
    for (unsigned i = 0; i < *n; i++) {
        struct oci_name name = name_of(str_printf(&call->arena, "r%u/x", i * 7 % *n).p);
        int64_t id;
        assert_int_equal(meta_repository_ensure(call, &name, (struct wall_us){i}, &id), 0);
    }
    return 0;
}

static void many_repositories_are_copied(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = serve(lab, "from");
    unsigned n = 300;
    OK(lab, db_transact(&lab->call, registry_db(registry), make_repositories, &n));
    registry_close(registry);
    migrate(lab);
    assert_int_equal(lab->counts.repositories, 300);
    assert_copied(lab);
}

/* More than what is put in one transaction. */
static void large_manifests_are_copied(void **state)
{
    struct lab *lab = *state;
    struct registry *registry = serve(lab, "from");
    auto_mem char *filler = mem_zalloc(3 << 20);
    memset(filler, 'x', (3 << 20) - 1);
    for (int i = 0; i < 7; i++) {
        struct str content = str_printf(&lab->call.arena,
                                        "{\"schemaVersion\":2,\"mediaType\":\"" OCI_MEDIA_TYPE_INDEX
                                        "\",\"manifests\":[],\"annotations\":{\"n\":\"%d%s\"}}",
                                        i, filler);
        (void)push_manifest(lab, registry, "large", NULL, NULL, content);
    }
    registry_close(registry);
    migrate(lab);
    assert_int_equal(lab->counts.manifests, 7);
    assert_copied(lab);
}

/* ---- Whose copy ---- */

static void a_registry_is_not_copied_to_itself(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    const char *before = dump(lab, "from");
    FAILS(lab, try_migrate(lab, "from", "from"), ERR_CONFLICT);
    assert_non_null(strstr(lab->call.err.say, "the same registry"));
    assert_same_text(before, dump(lab, "from"));
}

static void a_registry_with_a_life_of_its_own_is_kept(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    struct registry *registry = serve(lab, "to");
    (void)push_image(lab, registry, "mine", "v1", "mine");
    registry_close(registry);
    const char *before = dump(lab, "to");
    FAILS(lab, try_migrate(lab, "from", "to"), ERR_CONFLICT);
    assert_non_null(strstr(lab->call.err.say, "migrate into an empty registry"));
    assert_same_text(before, dump(lab, "to"));
}

static void a_copy_that_was_served_is_no_copy_any_more(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    migrate(lab);
    registry_close(open_as(lab, "to", REGISTRY_SERVE_READ_ONLY));
    migrate(lab); /* looking at it does no harm */
    registry_close(serve(lab, "to"));
    FAILS(lab, try_migrate(lab, "from", "to"), ERR_CONFLICT);
}

static void a_copy_is_the_copy_of_one_registry(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    migrate(lab);
    registry_close(serve(lab, "third"));
    FAILS(lab, try_migrate(lab, "third", "to"), ERR_CONFLICT);
    assert_same_text(dump(lab, "from"), dump(lab, "to"));
    OK(lab, try_migrate(lab, "to", "fourth")); /* a copy may be copied */
    assert_same_text(dump(lab, "from"), dump(lab, "fourth"));
}

/* It has been served, but nothing is lost. */
static void an_empty_registry_becomes_a_copy(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    registry_close(serve(lab, "to"));
    migrate(lab);
    assert_copied(lab);
}

/* ---- What cannot be copied ---- */

static void a_blob_whose_bytes_are_lost_is_told_and_not_linked(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    struct oci_digest missing = oci_digest_of(HASH_SHA256, STR("layer a"));
    struct oci_digest shortened = oci_digest_of(HASH_SHA256, STR("layer b"));
    struct oci_digest changed = oci_digest_of(HASH_SHA256, STR("layer untagged"));
    remove_blob(lab, "from", &missing);
    replace_blob(lab, "from", &shortened, "layer");
    replace_blob(lab, "from", &changed, "LAYER untagged");
    for (int run = 0; run < 2; run++) {
        forget_troubles(lab);
        migrate(lab);
        assert_int_equal(lab->n_troubles, 3);
        assert_int_equal(lab->counts.troubles, 3);
        assert_true(was_told(lab, digest_text(lab, &missing)));
        assert_true(was_told(lab, digest_text(lab, &shortened)));
        assert_true(was_told(lab, digest_text(lab, &changed)));
        assert_string_equal(
            ask_sql(lab, "to/holdfast.db",
                    "SELECT count(*) FROM blob b JOIN repository_blob l ON l.blob_id = b.id"),
            "8\n");
        assert_false(has_blob(lab, "to", &missing));
        assert_false(has_blob(lab, "to", &changed));
        assert_int_equal(count_files(lab, "to/uploads"), 0);
    }
    uint64_t differences = compare(lab, /* deep= */ true);
    assert_int_equal(differences, 5); /* the first two are linked twice */
    char path[512];
    blob_path(lab, "from", &missing, path);
    auto_fd fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    assert_int_equal(write(fd, "layer a", 7), 7);
    replace_blob(lab, "from", &shortened, "layer b");
    replace_blob(lab, "from", &changed, "layer untagged");
    forget_troubles(lab);
    migrate(lab);
    assert_int_equal(lab->n_troubles, 0);
    assert_copied(lab);
}

static void a_damaged_manifest_is_told_and_left_out(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    run_sql(
        lab, "from/holdfast.db",
        "UPDATE manifest SET content = CAST(replace(CAST(content AS TEXT), 'schemaVersion',"
        " 'schemaversion') AS BLOB) WHERE id = (SELECT manifest_id FROM tag WHERE name = 'v1')");
    migrate(lab);
    assert_int_equal(lab->counts.troubles, 1);
    assert_true(was_told(lab, "of \"team/app\" is left out: its bytes are not what its digest"));
    assert_int_equal(lab->counts.manifests, 5);
    assert_int_equal(lab->counts.tags, 4); /* the one that names it counts, and waits for it */
    assert_string_equal(ask_sql(lab, "to/holdfast.db", "SELECT name FROM tag ORDER BY name"),
                        "all\nlatest\nv2\n");
    assert_int_equal(compare(lab, /* deep= */ true), 2); /* the manifest, and its tag */
}

/* What is not readable as a manifest any more cannot be stored as one. */
static void a_manifest_that_is_none_is_told_and_left_out(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    struct oci_digest digest = oci_digest_of(HASH_SHA256, STR("no manifest"));
    run_sql(lab, "from/holdfast.db",
            str_printf(&lab->call.arena,
                       "INSERT INTO manifest SELECT 100, repository_id, '%s', media_type,"
                       " '', NULL, '', 1, 11, CAST('no manifest' AS BLOB) FROM manifest"
                       " LIMIT 1",
                       digest_text(lab, &digest))
                .p);
    migrate(lab);
    assert_int_equal(lab->counts.troubles, 1);
    assert_true(was_told(lab, digest_text(lab, &digest)));
    assert_int_equal(lab->counts.manifests, 6);
}

/* A row whose key is not what it should be stops the copy, and nothing worse. */
static void a_damaged_database_is_an_error(void **state)
{
    static const char *const damages[] = {
        "UPDATE blob SET digest = 'sha256:short' WHERE id = 1",
        "UPDATE blob SET digest = printf('%.*c', 300, 'x') WHERE id = 1",
        "UPDATE manifest SET digest = printf('%.*c', 300, 'x') WHERE id = 1",
        "UPDATE repository SET name = 'NOT A NAME' WHERE id = 1",
        "UPDATE repository SET name = printf('%.*c', 300, 'x') WHERE id = 1",
        "UPDATE tag SET name = 'a' || char(0) || 'b' WHERE name = 'v1'",
        "UPDATE tag SET name = printf('%.*c', 300, 'x') WHERE name = 'v1'",
    };
    struct lab *lab = *state;
    for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
        const char *from = str_printf(&lab->call.arena, "from%zu", i).p;
        const char *to = str_printf(&lab->call.arena, "to%zu", i).p;
        struct registry *registry = serve(lab, from);
        fill(lab, registry);
        registry_close(registry);
        run_sql(lab, str_printf(&lab->call.arena, "%s/holdfast.db", from).p, damages[i]);
        int done = try_migrate(lab, from, to);
        bool told = lab->counts.troubles > 0;
        if (done == 0 && !told)
            fail_msg("not seen: %s", damages[i]);
        assert_true(done == 0 || lab->call.err.kind == ERR_CORRUPT ||
                    lab->call.err.kind == ERR_INVALID);
    }
}

/* ---- Broken off ---- */

static void a_stopped_copy_is_gone_on_with(void **state)
{
    struct lab *lab = *state;
    fill_many(lab, "from", 300, 1);
    struct registry *registry = serve(lab, "from");
    fill(lab, registry);
    registry_close(registry);
    unsigned runs = 0;
    for (int done = -1; done < 0; runs++) {
        atomic_store(&lab->stop, false);
        lab->stop_after = 1; /* at the first look at what was done, some pages further each time */
        done = try_migrate(lab, "from", "to");
        if (done < 0) {
            assert_int_equal(lab->call.err.kind, ERR_BUSY);
            assert_non_null(strstr(lab->call.err.say, "run it again to go on"));
        }
        assert_true(runs < 100);
        if (runs == 4) /* and now to the end */
            lab->options.stop = NULL;
    }
    assert_true(runs > 1);
    assert_int_equal(assert_copied(lab), 0);
    assert_int_equal(count_files(lab, "to/uploads"), 0);
}

static void a_stop_before_the_beginning_changes_little(void **state)
{
    struct lab *lab = *state;
    make_source(lab);
    atomic_store(&lab->stop, true);
    FAILS(lab, try_migrate(lab, "from", "to"), ERR_BUSY);
    assert_string_equal(ask_sql(lab, "to/holdfast.db", "SELECT count(*) FROM repository"), "0\n");
    atomic_store(&lab->stop, false);
    migrate(lab);
    assert_copied(lab);
}

#ifdef HOLDFAST_TEST_HOOKS
static void migrate_or_die(struct lab *lab)
{
    if (try_migrate(lab, "from", "to") < 0)
        _exit(1);
}

static void a_killed_copy_is_gone_on_with(void **state)
{
    static const char *const points[] = {
        "transfer.claimed",          "transfer.blob_stored:3", "transfer.blob_adopted",
        "transfer.applied",          "transfer.applied:2",     "transfer.applied:5",
        "transfer.applied:7",        "blob.synced:2",          "blob.named:140",
        "transfer.blob_adopted:150", "blob.committed:5"};
    struct lab *lab = *state;
    make_source(lab);
    fill_many(lab, "from", 300, 1);
    const char *expected = dump(lab, "from");
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        if (!crashes_at(lab, points[i], migrate_or_die))
            fail_msg("not passed: %s", points[i]);
        (void)assert_sound(lab, "to");
        migrate(lab);
        assert_same_text(expected, dump(lab, "to"));
        assert_int_equal(lab->counts.troubles, 0);
        (void)assert_sound(lab, "to");
        (void)test_tree_remove(lab_path(lab, "to"));
    }
}
#endif

/* ---- Threads ---- */

static void any_number_of_threads_copies(void **state)
{
    static const unsigned threads[] = {1, 2, 64};
    struct lab *lab = *state;
    fill_many(lab, "from", 200, 1);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        lab->options.threads = threads[i];
        migrate(lab);
        assert_int_equal(lab->counts.blobs, 200);
        assert_copied(lab);
        (void)test_tree_remove(lab_path(lab, "to"));
    }
}

struct pushing {
    struct lab lab; /* a call of its own */
    struct registry *registry;
    atomic_bool stop;
};

static void *push_all_the_time(void *context)
{
    struct pushing *pushing = context;
    struct lab *lab = &pushing->lab;
    for (unsigned i = 0; !atomic_load(&pushing->stop) && i < 1000; i++) {
        char seed[32];
        (void)snprintf(seed, sizeof(seed), "seed %u", i);
        struct oci_digest digest = push_image(lab, pushing->registry, "busy", "latest", seed);
        if (i % 3 == 2)
            delete_manifest(lab, pushing->registry, "busy", digest_text(lab, &digest));
        arena_done(&lab->call.arena);
    }
    return NULL;
}

static void a_registry_that_is_served_is_copied(void **state)
{
    struct lab *lab = *state;
    struct pushing pushing = {.registry = serve(lab, "from")};
    fill(lab, pushing.registry);
    call_init(&pushing.lab.call);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, push_all_the_time, &pushing), 0);
    for (int i = 0; i < 5; i++) {
        migrate(lab);
        assert_int_equal(lab->counts.troubles, 0);
    }
    atomic_store(&pushing.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    call_done(&pushing.lab.call);
    migrate(lab); /* the last pass */
    assert_same_text(dump(lab, "from"), dump(lab, "to"));
    registry_close(pushing.registry);
    assert_copied(lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, lab_setup, lab_teardown)
        TEST(a_copy_has_everything),
        TEST(a_second_run_changes_nothing),
        TEST(an_empty_registry_is_copied),
        TEST(what_changed_is_copied),
        TEST(a_copy_that_was_changed_is_set_right),
        TEST(lists_of_every_length_are_copied),
        TEST(lists_that_differ_everywhere_are_copied),
        TEST(many_repositories_are_copied),
        TEST(large_manifests_are_copied),
        TEST(a_registry_is_not_copied_to_itself),
        TEST(a_registry_with_a_life_of_its_own_is_kept),
        TEST(a_copy_that_was_served_is_no_copy_any_more),
        TEST(a_copy_is_the_copy_of_one_registry),
        TEST(an_empty_registry_becomes_a_copy),
        TEST(a_blob_whose_bytes_are_lost_is_told_and_not_linked),
        TEST(a_damaged_manifest_is_told_and_left_out),
        TEST(a_manifest_that_is_none_is_told_and_left_out),
        TEST(a_damaged_database_is_an_error),
        TEST(a_stopped_copy_is_gone_on_with),
        TEST(a_stop_before_the_beginning_changes_little),
#ifdef HOLDFAST_TEST_HOOKS
        TEST(a_killed_copy_is_gone_on_with),
#endif
        TEST(any_number_of_threads_copies),
        TEST(a_registry_that_is_served_is_copied),
    };
    return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
