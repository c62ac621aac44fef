/* What blob.h promises wherever the bytes are: each test runs over a folder and over an object
 * store, in memory or a real one (test_s3_int.h). */
#include "blob/test_blob_int.h"
#include "blob/test_s3_int.h"

#include <sched.h>

#define MIB ((size_t)1024 * 1024)

static int remote_open(void **state)
{
    struct s3 *s3 = test_s3_open("contract");
    if (s3 == NULL) {
        *state = NULL;
        return 0;
    }
    struct place *place = mem_zalloc(sizeof(*place));
    place->part_bytes = 5 * MIB;
    const struct blob_s3_options options = {.part_bytes = place->part_bytes};
    place->store = blob_store_open_s3(s3, &options);
    *state = place;
    return 0;
}

static int remove_object(void *context, const struct oci_digest *digest, struct str location,
                         uint64_t size, struct wall_us changed, struct err *err)
{
    (void)digest;
    (void)changed;
    struct place *place = context;
    struct blob_ref blob = {.size = size, .location = location};
    return blob_delete(place->store, &blob, 1, err);
}

static int remote_close(void **state)
{
    struct place *place = *state;
    if (place == NULL)
        return 0;
    struct err err;
    const struct blob_walk walk = {.blob = remove_object};
    OK(blob_walk(place->store, &walk, place, &err));
    blob_store_close(place->store);
    free(place);
    return 0;
}

static struct place *place_of(void **state)
{
    if (*state == NULL) {
        print_message("SKIPPED: HOLDFAST_TEST_S3 names no object store\n");
        skip();
    }
    return *state;
}

/* ---- Pushing and pulling ---- */

static void blobs_get_their_standard_digests(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    const struct {
        const char *digest;
        struct str content;
    } known[] = {{EMPTY_256, STR("")},
                 {ABC_256, STR("abc")},
                 {ABC_512, STR("abc")},
                 {MILLION_A_256, million_a(&bytes)},
                 {MILLION_A_512, {bytes, 1000000}}};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        struct oci_digest digest = digest_of(known[i].digest);
        struct blob_row row;
        OK(row_push(&row, place->store, digest.algorithm, known[i].content, &digest, &err));
        assert_true(row_holds(&row, place->store, known[i].content));
    }
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, ARRAY_SIZE(known));
    assert_int_equal(counts.uploads, 0);
    assert_int_equal(counts.strays, 0);
}

static void pieces_of_any_size_make_one_blob(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    struct oci_digest digest = digest_of(MILLION_A_256);
    static const size_t pieces[] = {1, 63, 64, 65, 7919, 65536, 262144};
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    uint64_t at = 0;
    for (size_t i = 0; at < content.n; i++) {
        size_t n = str_first(str_from_at(content, at), pieces[i % ARRAY_SIZE(pieces)]).n;
        OK(blob_upload_write(upload, content.p + at, n, &err));
        OK(blob_upload_write(upload, "", 0, &err));
        at += n;
        assert_int_equal(blob_upload_offset(upload), at);
    }
    struct blob_row row;
    OK(row_commit(&row, upload, &digest, &err));
    assert_true(row_holds(&row, place->store, content));
}

static void a_wrong_digest_leaves_the_upload_as_it_was(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    struct blob_row row;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "ab", 2, &err));
    FAILS(row_commit(&row, upload, &abc, &err), ERR_INVALID);
    assert_string_equal(err.code, OCI_DIGEST_INVALID);
    assert_non_null(strstr(err.say, ABC_256)); /* what was said, and what it is: sha256sum */
    assert_non_null(
        strstr(err.say, "sha256:fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603"));
    assert_int_equal(count(place->store).blobs, 0);

    /* Both of a long digest fit into what the client is told. */
    struct oci_digest long_one = digest_of(ABC_512);
    FAILS(row_commit(&row, upload, &long_one, &err), ERR_INVALID);
    assert_non_null(strstr(err.say, ABC_512));

    OK(blob_upload_write(upload, "c", 1, &err));
    OK(row_commit(&row, upload, &abc, &err));
    assert_true(row_holds(&row, place->store, STR("abc")));
    OK(blob_upload_drop(upload, row.ref.location, &err));
    assert_int_equal(count(place->store).blobs, 1);
    assert_true(row_holds(&row, place->store, STR("abc")));
}

static void a_digest_of_the_other_algorithm_hashes_again(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    struct blob_row row;
    struct oci_digest digest = digest_of(MILLION_A_512);
    OK(row_push(&row, place->store, HASH_SHA256, content, &digest, &err));
    assert_true(row_holds(&row, place->store, content));
    digest = digest_of(MILLION_A_256);
    OK(row_push(&row, place->store, HASH_SHA512, content, &digest, &err));
    assert_true(row_holds(&row, place->store, content));
}

static int refuse_second(void *context, struct str piece, struct err *err)
{
    (void)piece;
    return ++*(int *)context == 2 ? err_set(err, ERR_NOT_FOUND, "enough") : 0;
}

static void reading_stops_when_it_is_told_to(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    struct oci_digest digest = digest_of(MILLION_A_256);
    struct blob_row row;
    OK(row_push(&row, place->store, HASH_SHA256, content, &digest, &err));
    int pieces = 0;
    FAILS(blob_read(place->store, &row.ref, refuse_second, &pieces, &err), ERR_NOT_FOUND);
    assert_string_equal(err.say, "enough"); /* the taker's own words */
    assert_int_equal(pieces, 2);
}

static void a_blob_of_another_size_than_its_row_says_is_told(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    struct blob_row row;
    OK(row_push(&row, place->store, HASH_SHA256, STR("abc"), &abc, &err));
    static const uint64_t sizes[] = {0, 2, 4, UINT64_C(1) << 40};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        bool same = true;
        row.ref.size = sizes[i];
        OK(blob_verify(place->store, &row.ref, &same, &err));
        assert_false(same);
    }
    int pieces = -100;
    row.ref.size = 4;
    FAILS(blob_read(place->store, &row.ref, refuse_second, &pieces, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.say, "does not have its size"));
    assert_non_null(strstr(err.say, ABC_256));

    /* Right size, other bytes. */
    bool same = true;
    row.ref.size = 3;
    row.ref.digest = digest_of(EMPTY_256);
    if (place->part_bytes > 0) {
        OK(blob_verify(place->store, &row.ref, &same, &err));
        assert_false(same);
    }
}

static void deleting_takes_many_and_any(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct blob_row rows[12];
    struct blob_ref refs[ARRAY_SIZE(rows)];
    for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
        struct str content = {(char *)&i, sizeof(i)};
        struct oci_digest digest = oci_digest_of(HASH_SHA256, content);
        OK(row_push(&rows[i], place->store, HASH_SHA256, content, &digest, &err));
        refs[i] = rows[i].ref;
    }
    OK(blob_delete(place->store, refs, 0, &err));
    OK(blob_delete(place->store, refs, 1, &err));
    assert_int_equal(count(place->store).blobs, ARRAY_SIZE(rows) - 1);
    OK(blob_delete(place->store, refs, ARRAY_SIZE(rows) - 1, &err)); /* one is gone already */
    assert_int_equal(count(place->store).blobs, 1);
    unsigned last = ARRAY_SIZE(rows) - 1;
    assert_true(row_holds(&rows[last], place->store, (struct str){(char *)&last, sizeof(last)}));

    assert_false(row_holds(&rows[0], place->store, STR("")));
    bool same;
    FAILS(blob_verify(place->store, &refs[0], &same, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, OCI_BLOB_UNKNOWN);
    int pieces = 0;
    FAILS(blob_read(place->store, &refs[0], refuse_second, &pieces, &err), ERR_NOT_FOUND);
    assert_int_equal(pieces, 0);
}

/* ---- Going on with an upload ---- */

static void an_upload_survives_a_restart_at_any_offset(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    static const uint64_t offsets[] = {0,   1,   63,   64,   65,     127,
                                       128, 129, 4095, 4096, 999999, 1000000};
    static const char *const digests[] = {MILLION_A_256, MILLION_A_512};
    for (size_t i = 0; i < 2 * ARRAY_SIZE(offsets); i++) {
        uint64_t offset = offsets[i / 2];
        struct oci_digest digest = digest_of(digests[i % 2]);
        auto_row row = {0};
        struct blob_upload *first = NULL;
        OK(blob_upload_create(place->store, digest.algorithm, row.id, &first, &err));
        OK(blob_upload_write(first, content.p, offset, &err));
        OK(row_save(&row, first, &err));
        OK(blob_upload_write(first, "never acknowledged", 18, &err));
        blob_upload_close(first);
        if (place->part_bytes == 0)
            place_reopen(place);

        auto_upload second = NULL;
        OK(row_resume(&row, place->store, &second, &err));
        assert_int_equal(blob_upload_offset(second), offset);
        OK(blob_upload_write(second, content.p + offset, content.n - offset, &err));
        struct blob_row blob;
        OK(row_commit(&blob, second, &digest, &err));
        OK(blob_upload_drop(second, blob.ref.location, &err));
        assert_true(row_holds(&blob, place->store, content));
        assert_int_equal(count(place->store).blobs, 1);
        assert_int_equal(count(place->store).uploads, 0);
        OK(blob_delete(place->store, &blob.ref, 1, &err));
    }
}

/* Small uploads, whose bytes can be read again wherever they are. */
static void a_hash_state_that_cannot_be_read_is_made_again(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    for (int what = 0; what < 3; what++) {
        struct oci_digest digest = digest_of(MILLION_A_256);
        auto_row row = {0};
        struct blob_upload *first = NULL;
        OK(blob_upload_create(place->store, HASH_SHA256, row.id, &first, &err));
        OK(blob_upload_write(first, content.p, 400000, &err));
        OK(row_save(&row, first, &err));
        blob_upload_close(first);
        if (what == 0)
            row.state[5] ^= 1; /* another version of the library */
        else if (what == 1)
            row.state_n = 0;
        else
            row.state[8 + 32] ^= 1; /* a state of another offset */

        auto_upload second = NULL;
        OK(row_resume(&row, place->store, &second, &err));
        OK(blob_upload_write(second, content.p, 600000, &err));
        struct blob_row blob;
        OK(row_commit(&blob, second, &digest, &err));
        OK(blob_upload_drop(second, blob.ref.location, &err));
        assert_true(row_holds(&blob, place->store, content));
        OK(blob_delete(place->store, &blob.ref, 1, &err));
    }
}

static void discarding_leaves_nothing_and_spares_what_became_a_blob(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    struct counts counts;
    for (int kept = 0; kept < 2; kept++) {
        auto_row row = {0};
        struct blob_row blob;
        struct blob_upload *upload = NULL;
        OK(blob_upload_create(place->store, HASH_SHA256, row.id, &upload, &err));
        OK(blob_upload_write(upload, "abc", 3, &err));
        OK(row_save(&row, upload, &err));
        OK(row_commit(&blob, upload, &abc, &err));
        blob_upload_close(upload);
        OK(blob_upload_discard(place->store, str_from(row.id), row.stage,
                               kept ? blob.ref.location : STR(""), &err));
        OK(blob_upload_discard(place->store, str_from(row.id), row.stage,
                               kept ? blob.ref.location : STR(""), &err)); /* nothing there */
        assert_int_equal(row_holds(&blob, place->store, STR("abc")),
                         kept || place->part_bytes == 0);
        OK(blob_delete(place->store, &blob.ref, 1, &err));
        counts = count(place->store);
        assert_int_equal(counts.blobs + counts.uploads, 0);
    }
    struct blob_upload *upload = NULL;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "abc", 3, &err));
    OK(blob_upload_sync(upload, &err));
    OK(blob_upload_write(upload, "def", 3, &err));
    OK(blob_upload_sync(upload, &err));
    OK(blob_upload_drop(upload, STR(""), &err));
    blob_upload_close(upload);
    counts = count(place->store);
    assert_int_equal(counts.blobs + counts.uploads, 0);
}

static void what_is_no_id_is_refused(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const struct str wrong[] = {{NULL, 0},
                                       {"../../../../../../../../../etc/passwd", 36},
                                       {"00000000-0000-1000-8000-000000000000", 36},
                                       {"00000000-0000-4000-8000-00000000000", 35}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct blob_upload *upload = NULL;
        FAILS(blob_upload_hold(place->store, wrong[i], &upload, &err), ERR_INVALID);
        FAILS(blob_upload_discard(place->store, wrong[i], STR(""), STR(""), &err), ERR_INVALID);
    }
}

/* ---- Walking, and the store itself ---- */

struct seen {
    struct place *place;
    size_t blobs;
    size_t stop_after;
    uint64_t size;
    char location[BLOB_LOCATION_BYTES_MAX + 1];
    struct wall_us changed;
};

/* Deletes and pushes while the walk is under way. */
static int see_blob(void *context, const struct oci_digest *digest, struct str location,
                    uint64_t size, struct wall_us changed, struct err *err)
{
    struct seen *seen = context;
    assert_int_equal(digest == NULL, seen->place->part_bytes > 0);
    assert_int_equal(location.n > 0, seen->place->part_bytes > 0);
    (void)snprintf(seen->location, sizeof(seen->location), STR_FMT, STR_ARG(location));
    seen->size = size;
    seen->changed = changed;
    if (++seen->blobs == seen->stop_after)
        return err_set(err, ERR_TIMEOUT, "enough");
    struct blob_ref blob = {.size = size, .location = location};
    if (digest != NULL)
        blob.digest = *digest;
    return blob_delete(seen->place->store, &blob, 1, err);
}

static void the_walk_reports_what_it_sees(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    struct blob_row row;
    struct wall_us before = clock_wall();
    OK(row_push(&row, place->store, HASH_SHA256, STR("abc"), &abc, &err));
    struct seen seen = {.place = place, .stop_after = 1};
    struct blob_walk walk = {.blob = see_blob};
    FAILS(blob_walk(place->store, &walk, &seen, &err), ERR_TIMEOUT);
    assert_string_equal(err.say, "enough");
    OK(blob_walk(place->store, &walk, &seen, &err));
    assert_int_equal(seen.blobs, 2);
    assert_int_equal(seen.size, 3);
    assert_string_equal(seen.location, row.location);
    /* The other's clock is this machine's, and may know whole seconds only. */
    assert_true(seen.changed.us > before.us - 2 * CLOCK_SECOND_US);
    assert_true(seen.changed.us < clock_wall().us + 2 * CLOCK_SECOND_US);
    assert_false(row_holds(&row, place->store, STR("abc")));
}

static void a_ping_leaves_nothing(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    OK(blob_store_ping(place->store, &err));
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs + counts.uploads + counts.strays, 0);
}

/* ---- Many at once ---- */

struct crowd {
    struct blob_store *store;
    pthread_barrier_t start;
    struct oci_digest shared[8];
    struct str shared_content[8];
};
struct member {
    struct crowd *crowd;
    unsigned number;
    struct blob_row last;
    char failure[200]; /* empty: none */
};

/* Every thread pushes blobs of its own, and all of them push the same ones at the same moment. */
static void *push_many(void *context)
{
    struct member *member = context;
    struct crowd *crowd = member->crowd;
    for (unsigned i = 0; i < ARRAY_SIZE(crowd->shared); i++) {
        (void)pthread_barrier_wait(&crowd->start);
        struct err err;
        char own[40];
        struct blob_row row;
        int n = snprintf(own, sizeof(own), "thread %u blob %u", member->number, i);
        struct oci_digest digest = oci_digest_of(HASH_SHA256, (struct str){own, (size_t)n});
        if (row_push(&member->last, crowd->store, HASH_SHA256, crowd->shared_content[i],
                     &crowd->shared[i], &err) < 0 ||
            row_push(&row, crowd->store, HASH_SHA256, (struct str){own, (size_t)n}, &digest, &err) <
                0)
            (void)snprintf(member->failure, sizeof(member->failure), "%.60s (%.130s)", err.say,
                           err.why);
    }
    return NULL;
}

static void many_threads_push_the_same_and_other_blobs(void **state)
{
    struct place *place = place_of(state);
    struct crowd crowd = {.store = place->store};
    struct member members[16] = {0};
    pthread_t threads[ARRAY_SIZE(members)];
    static char texts[ARRAY_SIZE(crowd.shared)][24];
    const size_t n_shared = ARRAY_SIZE(crowd.shared);
    for (unsigned i = 0; i < n_shared; i++) {
        int n = snprintf(texts[i], sizeof(texts[i]), "shared %u", i);
        crowd.shared_content[i] = (struct str){texts[i], (size_t)n};
        crowd.shared[i] = oci_digest_of(HASH_SHA256, crowd.shared_content[i]);
    }
    assert_int_equal(pthread_barrier_init(&crowd.start, NULL, ARRAY_SIZE(members)), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(members); i++) {
        members[i] = (struct member){.crowd = &crowd, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, push_many, &members[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(members); i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    (void)pthread_barrier_destroy(&crowd.start);

    for (size_t i = 0; i < ARRAY_SIZE(members); i++) {
        assert_string_equal(members[i].failure, "");
        assert_true(row_holds(&members[i].last, place->store, crowd.shared_content[n_shared - 1]));
    }
    /* A folder has the same bytes once; an object store as often as they came, and who has the rows
     * decides which of them stays. */
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, n_shared * (ARRAY_SIZE(members) +
                                               (place->part_bytes == 0 ? 1 : ARRAY_SIZE(members))));
    assert_int_equal(counts.uploads, 0);
    assert_int_equal(counts.strays, 0);
}

#define BOTH(f)                                                 \
    {#f ", folder", f, place_open, place_close, NULL},          \
    {                                                           \
#f ", object store", f, remote_open, remote_close, NULL \
    }

/* An argument chooses among the tests, as in "*_threads_*". */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        BOTH(blobs_get_their_standard_digests),
        BOTH(pieces_of_any_size_make_one_blob),
        BOTH(a_wrong_digest_leaves_the_upload_as_it_was),
        BOTH(a_digest_of_the_other_algorithm_hashes_again),
        BOTH(reading_stops_when_it_is_told_to),
        BOTH(a_blob_of_another_size_than_its_row_says_is_told),
        BOTH(deleting_takes_many_and_any),
        BOTH(an_upload_survives_a_restart_at_any_offset),
        BOTH(a_hash_state_that_cannot_be_read_is_made_again),
        BOTH(discarding_leaves_nothing_and_spares_what_became_a_blob),
        BOTH(what_is_no_id_is_refused),
        BOTH(the_walk_reports_what_it_sees),
        BOTH(a_ping_leaves_nothing),
        BOTH(many_threads_push_the_same_and_other_blobs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
