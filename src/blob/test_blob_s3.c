/* The store over an object store: sizes around the borders of parts, uploads that go on elsewhere,
 * writers that come late, rows that are damaged. In memory and against a real server
 * (test_s3_int.h); what was asked of it is only seen in memory. */
#include "blob/blob_s3_int.h"
#include "blob/test_blob_int.h"
#include "blob/test_s3_int.h"

#define MIB ((size_t)1024 * 1024)
#define PART (6 * MIB)        /* so that it differs from the least that a part may be */
#define HELD (PART + 5 * MIB) /* what an upload holds in memory at most */
#define LARGE (3 * PART + 7)
#define LARGER (23 * MIB + 5)
#define NEVER_ID "00000000-0000-4000-8000-000000000000"
#define NEVER_KEY "blobs/00/" NEVER_ID

/* The numbers from 0 on, a line each; digests by: seq 0 99999999 | head -c SIZE | sha256sum */
static struct str numbers; /* made once, before the tests */

static const struct sample {
    size_t size;
    const char *digest;
} samples[] = {
    {0, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {1, "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"},
    {5 * MIB - 1, "sha256:02c29084a0f861c6748af892fdecbc4cec34a9e4c7d1441db126dfb9b9daea12"},
    {5 * MIB, "sha256:214c5373f2bbc965a10fbbc260b547d6ac30511fcd56b56e89aee9bc3f700349"},
    {PART - 1, "sha256:6d54284e92737980826a6ea8d0b4a26c751db4c2cc53dfe97953560041db4301"},
    {PART, "sha256:a4c80e3472447d8faafd7488f5050f3edf83691bf943b1838c3cd393a30ad958"},
    {PART + 1, "sha256:20fea4af87fdf6dd36646d84dee845764e7af0ad475068fc5e6adc108904c311"},
    {HELD - 1, "sha256:a77614c39718068bef043e4bbec734ecdd1b17a8ff78b132e15997e0013bef18"},
    {HELD, "sha256:18ac6856b310cc768519e9e3f035e3de827240fdcce8151e1ccafa6176cb1ea3"},
    {HELD + 1, "sha256:dc6e558e5a9b884b3e6454dcdc85565123d2017eedead5e717f742c092afaf79"},
    {LARGE, "sha256:e3a660820f30c2777589d684576d764ba202bdd03b905b4efc5b47da35a1fd5f"},
    {LARGER, "sha256:1b0fe9ae31944b871c2784dbf1d5496e506e0fff9341fabadc76ac18464ed511"},
};
#define LARGEST (46 * MIB + 2)
#define LARGEST_DIGEST "sha256:5692532858016de1366de780c19ae04d41d6e27fa3b31f6f2008e937905d1c15"
#define LARGE_512                                                                                  \
    "sha512:0a415ac2987be80c6582b06d10123402f0039d6eea28b920461263f1057469e87652e4e3729f02ad61aa8" \
    "dca2f66b8a1ec623eb6238f00a2dfc9c708e111199d"

static struct str content_of(size_t size)
{
    return str_first(numbers, size);
}
static struct oci_digest sample_digest(size_t size)
{
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++)
        if (samples[i].size == size)
            return digest_of(samples[i].digest);
    fail_msg("no sample has %zu bytes", size);
    abort();
}

static void numbers_make(char *bytes, size_t n)
{
    size_t at = 0;
    for (unsigned i = 0; at < n; i++) {
        char line[16];
        size_t length = (size_t)snprintf(line, sizeof(line), "%u\n", i);
        if (length > n - at)
            length = n - at;
        memcpy(bytes + at, line, length);
        at += length;
    }
    numbers = (struct str){bytes, n};
}

/* ---- A store, and what is in it ---- */

static int bucket_open(void **state)
{
    struct s3 *s3 = test_s3_open("blob-s3");
    *state = NULL;
    if (s3 == NULL)
        return 0;
    struct place *place = mem_zalloc(sizeof(*place));
    place->part_bytes = PART;
    const struct blob_s3_options options = {.part_bytes = PART};
    place->store = blob_store_open_s3(s3, &options);
    *state = place;
    test_s3_reset();
    return 0;
}

static int remove_object(void *context, const struct oci_digest *digest, struct str location,
                         uint64_t size, struct wall_us changed, struct err *err)
{
    (void)digest;
    (void)changed;
    struct blob_ref blob = {.size = size, .location = location};
    return blob_delete(context, &blob, 1, err);
}
static int remove_upload(void *context, struct str id, struct str stage, uint64_t size,
                         struct wall_us changed, struct err *err)
{
    (void)changed;
    assert_int_equal(size, 0);
    return blob_upload_discard(context, id, stage, STR(""), err);
}
static const struct blob_walk removing = {.blob = remove_object, .upload = remove_upload};

static int bucket_close(void **state)
{
    struct place *place = *state;
    if (place == NULL)
        return 0;
    struct err err;
    OK(blob_walk(place->store, &removing, place->store, &err));
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs + counts.uploads, 0);
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

/* Proves by the object store's own lists that there are so many objects and unfinished multipart
 * uploads, and nothing else. */
static void assert_there(struct place *place, size_t objects, size_t multiparts)
{
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, objects);
    assert_int_equal(counts.uploads, multiparts);
    assert_int_equal(counts.strays, 0);
}

/* The calls since the last look; nothing to see on a real server. */
static void assert_calls(const char *const *expected, size_t n)
{
    struct test_s3_record *record = &test_s3_record;
    if (record->in_memory) {
        for (size_t i = 0; i < n && i < record->n; i++)
            assert_string_equal(record->calls[i], expected[i]);
        assert_int_equal(record->n, n);
    }
    test_s3_reset();
}
#define ASSERT_CALLS(...)                                     \
    do {                                                      \
        static const char *const expected_[] = {__VA_ARGS__}; \
        assert_calls(expected_, ARRAY_SIZE(expected_));       \
    } while (0)
#define ASSERT_NO_CALLS() assert_calls(NULL, 0)

/* Writes in pieces as they come from a network, whose borders are nobody else's. */
static int write_from(struct blob_upload *upload, struct str content, struct err *err)
{
    const size_t piece = 65521;
    for (size_t at = 0; at < content.n; at += piece) {
        struct str one = str_first(str_from_at(content, at), piece);
        if (blob_upload_write(upload, one.p, one.n, err) < 0)
            return -1;
        size_t memory = bucket_upload_memory(upload);
        assert_true(memory <= HELD);
        assert_true(memory <= 64 * 1024 || memory <= 2 * blob_upload_offset(upload));
    }
    return 0;
}

static void create_row(struct place *place, struct upload_row *row)
{
    struct err err;
    struct blob_upload *upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, row->id, &upload, &err));
    row->state_n = blob_upload_hash_state(upload, row->state);
    blob_upload_close(upload);
}

/* One request with a chunk, by whichever node. */
static void patch(struct place *place, struct upload_row *row, struct str content)
{
    struct err err;
    auto_upload upload = NULL;
    OK(row_resume(row, place->store, &upload, &err));
    OK(write_from(upload, content, &err));
    OK(row_save(row, upload, &err));
}

/* The last request. */
static void finish(struct place *place, const struct upload_row *row, struct str content,
                   const struct oci_digest *digest, struct blob_row *ret)
{
    struct err err;
    auto_upload upload = NULL;
    OK(row_resume(row, place->store, &upload, &err));
    OK(write_from(upload, content, &err));
    OK(row_commit(ret, upload, digest, &err));
    OK(blob_upload_drop(upload, ret->ref.location, &err));
}

static void assert_blob(struct place *place, const struct blob_row *blob, struct str content)
{
    assert_true(row_holds(blob, place->store, content));
    assert_there(place, 1, 0);
    struct err err;
    OK(blob_delete(place->store, &blob->ref, 1, &err));
}

/* ---- Sizes ---- */

static void any_size_in_one_request(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        struct str content = content_of(samples[i].size);
        struct oci_digest digest = digest_of(samples[i].digest);
        struct blob_row blob;
        OK(row_push(&blob, place->store, HASH_SHA256, content, &digest, &err));
        assert_blob(place, &blob, content);
    }
}

static void any_size_as_clients_push(void **state)
{
    struct place *place = place_of(state);
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        struct str content = content_of(samples[i].size);
        struct oci_digest digest = digest_of(samples[i].digest);
        struct blob_row blob;
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content);
        finish(place, &row, STR(""), &digest, &blob);
        assert_blob(place, &blob, content);
    }
}

/* Chunks of sizes that fit to nothing: below, at and beyond what is a part, a buffer. */
static void any_size_in_chunks_of_any_size(void **state)
{
    struct place *place = place_of(state);
    static const size_t chunks[] = {1, 3 * MIB + 1, 5 * MIB - 1, 5 * MIB, HELD + 1, 2 * HELD};
    for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
        struct str content = content_of(samples[i].size);
        struct oci_digest digest = digest_of(samples[i].digest);
        struct blob_row blob;
        auto_row row = {0};
        create_row(place, &row);
        size_t at = 0;
        for (size_t k = i; at < content.n; k++) {
            struct str chunk = str_first(str_from_at(content, at), chunks[k % ARRAY_SIZE(chunks)]);
            if (k % 3 == 2 && chunk.n == content.n - at)
                break; /* the last with the commit */
            patch(place, &row, chunk);
            at += chunk.n;
        }
        finish(place, &row, str_from_at(content, at), &digest, &blob);
        assert_blob(place, &blob, content);
    }
}

static void what_the_object_store_is_asked(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct blob_row blob;

    /* Whatever fits into memory is one request, in one go or as clients do it. */
    struct oci_digest digest = sample_digest(HELD);
    OK(row_push(&blob, place->store, HASH_SHA256, content_of(HELD), &digest, &err));
    ASSERT_CALLS("put");
    auto_row small = {0};
    create_row(place, &small);
    patch(place, &small, content_of(HELD));
    finish(place, &small, STR(""), &digest, &blob);
    ASSERT_CALLS("put");

    /* More of it is a begin, a put for each part, an end. */
    digest = sample_digest(LARGE);
    auto_row large = {0};
    create_row(place, &large);
    patch(place, &large, content_of(LARGE));
    ASSERT_CALLS("multipart_begin", "multipart_put", "multipart_put", "multipart_put");
    finish(place, &large, STR(""), &digest, &blob);
    ASSERT_CALLS("multipart_complete");
    OK(row_push(&blob, place->store, HASH_SHA256, content_of(LARGE), &digest, &err));
    ASSERT_CALLS("multipart_begin", "multipart_put", "multipart_put", "multipart_put",
                 "multipart_complete");

    /* Small chunks: a tail each, and the one before is read and removed. */
    auto_row chunks = {0};
    create_row(place, &chunks);
    patch(place, &chunks, content_of(3 * MIB));
    ASSERT_CALLS("put");
    patch(place, &chunks, str_first(str_from_at(numbers, 3 * MIB), MIB));
    ASSERT_CALLS("get", "put", "delete");
    patch(place, &chunks, str_first(str_from_at(numbers, 4 * MIB), MIB));
    ASSERT_CALLS("get", "multipart_begin", "multipart_put", "delete");
    patch(place, &chunks, STR("")); /* nothing new */
    ASSERT_NO_CALLS();
    OK(blob_upload_discard(place->store, str_from(chunks.id), chunks.stage, STR(""), &err));
    ASSERT_CALLS("multipart_abort", "delete");
    OK(blob_upload_discard(place->store, str_from(chunks.id), STR(""), STR(""), &err));
    ASSERT_NO_CALLS();
}

/* Pieces as they come, acknowledged or not: what has been hashed on its way in is not hashed again,
 * as long as one object has all of it. */
static void an_object_of_all_bytes_is_hashed_once(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct blob_row blob;
    static const size_t sizes[] = {0, 1, 5 * MIB, HELD};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct str content = content_of(sizes[i]);
        struct oci_digest digest = sample_digest(sizes[i]);
        OK(row_push(&blob, place->store, HASH_SHA256, content, &digest, &err));
        assert_blob(place, &blob, content);
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content);
        finish(place, &row, STR(""), &digest, &blob);
        assert_blob(place, &blob, content);
    }
    struct oci_digest digest = sample_digest(5 * MIB - 1);
    auto_row row = {0};
    create_row(place, &row);
    for (size_t at = 0; at < 5 * MIB - 1; at += 2 * MIB)
        patch(place, &row, str_first(str_from_at(content_of(5 * MIB - 1), at), 2 * MIB));
    finish(place, &row, STR(""), &digest, &blob);
    assert_blob(place, &blob, content_of(5 * MIB - 1));
    assert_int_equal(test_s3_record.hashed, 0);

    /* sha512 is another hash, and a tail behind parts is not all of it. */
    struct oci_digest other = oci_digest_of(HASH_SHA512, STR("abc"));
    OK(row_push(&blob, place->store, HASH_SHA512, STR("abc"), &other, &err));
    assert_blob(place, &blob, STR("abc"));
    digest = sample_digest(LARGE);
    auto_row large = {0};
    create_row(place, &large);
    patch(place, &large, str_first(content_of(LARGE), LARGE - 7));
    patch(place, &large, str_from_at(content_of(LARGE), LARGE - 7));
    finish(place, &large, STR(""), &digest, &blob);
    assert_blob(place, &blob, content_of(LARGE));
    if (test_s3_record.in_memory)
        assert_int_equal(test_s3_record.hashed, 2);
    test_s3_reset();
}

static void memory_is_taken_as_needed_and_given_back(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    assert_int_equal(bucket_upload_memory(upload), 0);
    OK(blob_upload_write(upload, "x", 1, &err));
    assert_true(bucket_upload_memory(upload) <= 64 * 1024);
    OK(write_from(upload, content_of(HELD - 1), &err));
    assert_int_equal(bucket_upload_memory(upload), HELD);
    OK(write_from(upload, content_of(LARGER), &err)); /* which looks at it all the time */
    assert_int_equal(bucket_upload_memory(upload), HELD);
    OK(blob_upload_sync(upload, &err));
    assert_int_equal(bucket_upload_memory(upload), 0);
    OK(blob_upload_drop(upload, STR(""), &err));
}

/* ---- Going on ---- */

/* After each of these the client comes back with what was not acknowledged. */
static void an_upload_goes_on_from_the_last_acknowledgement(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const struct {
        size_t saved;
        size_t lost;
    } cases[] = {{0, 0},           {0, 100},       {0, HELD + 1},    {0, 2 * HELD}, {100, 100},
                 {100, HELD},      {5 * MIB, 1},   {PART, 2 * PART}, {HELD, HELD},  {HELD, 1},
                 {2 * PART, PART}, {LARGE - 1, 1}, {LARGE, 0}};
    struct oci_digest digest = sample_digest(LARGE);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content_of(cases[i].saved));
        struct blob_upload *lost = NULL;
        OK(row_resume(&row, place->store, &lost, &err));
        struct str chunk = str_first(str_from_at(numbers, cases[i].saved), cases[i].lost);
        OK(write_from(lost, str_first(chunk, LARGE - cases[i].saved), &err));
        blob_upload_close(lost); /* the node is gone, and says nothing to anybody */

        struct blob_row blob;
        finish(place, &row, str_from_at(content_of(LARGE), cases[i].saved), &digest, &blob);
        assert_true(row_holds(&blob, place->store, content_of(LARGE)));
        /* A multipart upload that the lost one had begun is found, and everything is clean then. */
        const struct blob_walk sweep = {.upload = remove_upload};
        OK(blob_walk(place->store, &sweep, place->store, &err));
        assert_blob(place, &blob, content_of(LARGE));
    }
}

/* It was synced, and the node was gone before the row was written: the tail is left over, and
 * nothing else is wrong. */
static void a_sync_that_no_row_heard_of_is_undone(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(1000));
    for (size_t more = 1; more <= 2 * HELD; more = more == 1 ? 2 * HELD : more + 1) {
        auto_upload unheard = NULL;
        OK(row_resume(&row, place->store, &unheard, &err));
        OK(write_from(unheard, str_first(str_from_at(numbers, 5), more), &err)); /* other bytes */
        OK(blob_upload_sync(unheard, &err));
    }
    struct blob_row blob;
    struct oci_digest digest = sample_digest(PART);
    finish(place, &row, str_from_at(content_of(PART), 1000), &digest, &blob);
    assert_true(row_holds(&blob, place->store, content_of(PART)));
    assert_there(place, 2, 1); /* the blob, a tail of 1001 bytes, and parts */
}

static void a_commit_that_no_row_heard_of_is_done_again(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const size_t sizes[] = {0, 1, PART, HELD + 1, LARGE};
    for (size_t i = 0; i < 3 * ARRAY_SIZE(sizes); i++) {
        size_t size = sizes[i / 3];
        /* Acknowledged before it: all of it, a part, nothing. */
        size_t saved = i % 3 == 0 ? size : i % 3 == 1 ? size - size / 4 : 0;
        struct oci_digest digest = sample_digest(size);
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content_of(saved));
        struct blob_row first = {0};
        struct blob_upload *upload = NULL;
        OK(row_resume(&row, place->store, &upload, &err));
        OK(write_from(upload, str_from_at(content_of(size), saved), &err));
        OK(row_commit(&first, upload, &digest, &err));
        blob_upload_close(upload); /* the node is gone */

        struct blob_row second = {0};
        finish(place, &row, str_from_at(content_of(size), saved), &digest, &second);
        assert_true(row_holds(&second, place->store, content_of(size)));
        /* What only the first knew of is left over, and is removed as an object without a row. */
        if (strcmp(first.location, second.location) != 0)
            OK(blob_delete(place->store, &first.ref, 1, &err));
        assert_blob(place, &second, content_of(size));
    }
}

static void lost_bytes_are_told(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct blob_upload *upload = NULL;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(1000));
    static const uint64_t offsets[] = {0, 999, 1001, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_SIZE(offsets); i++) {
        row.received = offsets[i];
        FAILS(row_resume(&row, place->store, &upload, &err), ERR_CORRUPT);
        assert_non_null(strstr(err.say, "start it again"));
    }
    /* The tail is gone: told as soon as its bytes are needed. */
    row.received = 1000;
    OK(blob_upload_discard(place->store, str_from(row.id), row.stage, STR(""), &err));
    OK(row_resume(&row, place->store, &upload, &err));
    FAILS(blob_upload_write(upload, "x", 1, &err), ERR_CORRUPT);
    FAILS(blob_upload_sync(upload, &err), ERR_CORRUPT);
    blob_upload_close(upload);

    /* So is a multipart upload. */
    auto_row large = {0};
    create_row(place, &large);
    patch(place, &large, content_of(LARGE));
    OK(blob_upload_discard(place->store, str_from(large.id), large.stage, STR(""), &err));
    struct oci_digest digest = sample_digest(LARGER);
    struct str rest = str_from_at(content_of(LARGER), LARGE);
    struct blob_row blob;
    OK(row_resume(&large, place->store, &upload, &err));
    OK(write_from(upload, rest, &err));
    FAILS(row_commit(&blob, upload, &digest, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, OCI_BLOB_UPLOAD_UNKNOWN);
    blob_upload_close(upload);
    OK(row_resume(&large, place->store, &upload, &err));
    FAILS(write_from(upload, content_of(HELD + 1), &err), ERR_NOT_FOUND);
    blob_upload_close(upload);
    assert_there(place, 0, 0);
    if (!test_s3_record.in_memory)
        return; /* Ceph calls an aborted upload one whose completion is in progress */
    digest = sample_digest(LARGE);
    OK(row_resume(&large, place->store, &upload, &err));
    FAILS(row_commit(&blob, upload, &digest, &err), ERR_NOT_FOUND);
    blob_upload_close(upload);
}

static void parts_whose_hash_cannot_be_read_are_started_again(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(LARGE));
    row.state[5] ^= 1; /* another version of the library */
    struct blob_upload *upload = NULL;
    FAILS(row_resume(&row, place->store, &upload, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.say, "start the upload again"));
    OK(blob_upload_discard(place->store, str_from(row.id), row.stage, STR(""), &err));
    assert_there(place, 0, 0);
}

/* ---- Two at one upload ---- */

/* A node stood still while another took the upload over; now it goes on with what it has. */
static void who_comes_late_spoils_no_tail(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(1000));
    struct blob_upload *late = NULL;
    OK(row_resume(&row, place->store, &late, &err));
    OK(blob_upload_write(late, "nonsense", 8, &err));
    patch(place, &row, str_first(str_from_at(numbers, 1000), 1000));
    OK(blob_upload_sync(late, &err));
    auto_arena arena = {0};
    assert_false(str_eq(blob_upload_stage(late, &arena), row.stage));
    blob_upload_close(late); /* its row is not its own: no settling */
    struct blob_row blob;
    struct oci_digest digest = sample_digest(PART);
    finish(place, &row, str_from_at(content_of(PART), 2000), &digest, &blob);
    assert_true(row_holds(&blob, place->store, content_of(PART)));
    assert_there(place, 2, 0); /* the late one's tail, which no row names */
}

/* Bytes that nobody acknowledged became parts. Who goes on in other pieces writes over all of them:
 * a part that is left over is one too many for some object stores. */
static void what_was_not_acknowledged_is_written_over(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(HELD + 1));
    struct str rest = str_from_at(content_of(LARGEST), HELD + 1);
    struct blob_upload *broken = NULL;
    OK(row_resume(&row, place->store, &broken, &err));
    OK(write_from(broken, rest, &err));
    blob_upload_close(broken);
    while (rest.n > HELD) { /* the most that can be one part */
        patch(place, &row, str_first(rest, HELD));
        rest = str_from_at(rest, HELD);
    }
    struct blob_row blob;
    struct oci_digest digest = digest_of(LARGEST_DIGEST);
    finish(place, &row, rest, &digest, &blob);
    assert_blob(place, &blob, content_of(LARGEST));
}

/* The late one has the same bytes, and pieces of its own. */
static void the_same_part_of_a_late_writer_does_no_harm(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(HELD + 1));
    struct str rest = str_from_at(content_of(LARGEST), HELD + 1);
    struct blob_upload *late = NULL;
    OK(row_resume(&row, place->store, &late, &err));
    patch(place, &row, str_first(rest, HELD + 5 * MIB));
    OK(write_from(late, str_first(rest, HELD + PART + 1), &err)); /* it sends two */
    blob_upload_close(late);
    struct blob_row blob;
    struct oci_digest digest = digest_of(LARGEST_DIGEST);
    finish(place, &row, str_from_at(rest, HELD + 5 * MIB), &digest, &blob);
    assert_blob(place, &blob, content_of(LARGEST));
}

static void a_part_of_another_writer_is_noticed(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(HELD + 1));
    struct blob_upload *late = NULL;
    OK(row_resume(&row, place->store, &late, &err));
    patch(place, &row, str_from_at(content_of(LARGER), HELD + 1));
    OK(write_from(late, content_of(LARGER), &err)); /* other bytes than belong there */
    blob_upload_close(late);

    struct blob_upload *upload = NULL;
    struct blob_row blob;
    struct oci_digest digest = sample_digest(LARGER);
    OK(row_resume(&row, place->store, &upload, &err));
    FAILS(row_commit(&blob, upload, &digest, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, OCI_BLOB_UPLOAD_UNKNOWN);
    assert_non_null(strstr(err.say, "changed by another writer"));
    FAILS(blob_upload_write(upload, "x", 1, &err), ERR_NOT_FOUND);
    OK(blob_upload_drop(upload, STR(""), &err));
    blob_upload_close(upload);
    assert_there(place, 0, 0);
}

/* The late one completes what both have begun. With the same bytes that is as good; others of the
 * same number do not become this one's blob. */
static void what_another_writer_completed_is_read_before_it_is_believed(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    const size_t saved = LARGER - PART;
    struct str rest = str_from_at(content_of(LARGER), saved);
    auto_mem char *other = mem_alloc(LARGER);
    memcpy(other, numbers.p, LARGER);
    other[LARGER - 1] ^= 1;
    struct oci_digest right = sample_digest(LARGER);
    struct oci_digest wrong = oci_digest_of(HASH_SHA256, (struct str){other, LARGER});
    for (int same = 0; same < 2; same++) {
        auto_row row = {0};
        struct blob_row blob;
        struct blob_upload *late = NULL;
        struct blob_upload *upload = NULL;
        create_row(place, &row);
        patch(place, &row, content_of(saved));
        OK(row_resume(&row, place->store, &late, &err));
        OK(row_resume(&row, place->store, &upload, &err));
        OK(write_from(late, same ? rest : (struct str){other + saved, rest.n}, &err));
        OK(write_from(upload, rest, &err));
        OK(row_commit(&blob, late, same ? &right : &wrong, &err));
        blob_upload_close(late);
        if (same) {
            OK(row_commit(&blob, upload, &right, &err));
            OK(blob_upload_drop(upload, blob.ref.location, &err));
            assert_blob(place, &blob, content_of(LARGER));
        } else {
            FAILS(row_commit(&blob, upload, &right, &err), ERR_NOT_FOUND);
            assert_string_equal(err.code, OCI_BLOB_UPLOAD_UNKNOWN);
            assert_non_null(strstr(err.say, "changed by another writer"));
            OK(blob_upload_drop(upload, STR(""), &err));
            assert_there(place, 0, 0);
        }
        blob_upload_close(upload);
    }
}

/* Two requests that both begin: each has a multipart upload of its own, and one of them a row. */
static void two_that_begin_do_not_meet(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    struct blob_upload *late = NULL;
    OK(row_resume(&row, place->store, &late, &err));
    OK(write_from(late, str_from_at(content_of(LARGER), 5), &err));
    struct blob_row blob;
    struct oci_digest digest = sample_digest(LARGER);
    finish(place, &row, content_of(LARGER), &digest, &blob);
    struct blob_row later;
    struct oci_digest other = oci_digest_of(HASH_SHA256, str_from_at(content_of(LARGER), 5));
    OK(row_commit(&later, late, &other, &err));
    assert_string_not_equal(blob.location, later.location);
    assert_true(row_holds(&blob, place->store, content_of(LARGER)));
    OK(blob_upload_drop(late, STR(""), &err)); /* it had no row to go to */
    blob_upload_close(late);
    assert_blob(place, &blob, content_of(LARGER));
}

/* ---- Digests ---- */

static void a_digest_of_the_other_algorithm_is_made_of_the_whole_object(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    create_row(place, &row);
    patch(place, &row, content_of(LARGE));
    struct blob_row blob;
    struct oci_digest digest = digest_of(LARGE_512);
    finish(place, &row, STR(""), &digest, &blob);
    assert_blob(place, &blob, content_of(LARGE));

    /* A wrong one leaves a whole object behind, which nothing can be added to. */
    digest.bytes[0] ^= 1;
    auto_row wrong = {0};
    create_row(place, &wrong);
    patch(place, &wrong, content_of(LARGE));
    struct blob_upload *upload = NULL;
    OK(row_resume(&wrong, place->store, &upload, &err));
    FAILS(row_commit(&blob, upload, &digest, &err), ERR_INVALID);
    assert_string_equal(err.code, OCI_DIGEST_INVALID);
    assert_there(place, 1, 0);
    FAILS(blob_upload_write(upload, "x", 1, &err), ERR_CONFLICT);
    blob_upload_close(upload);
    /* The right one is still right. */
    digest.bytes[0] ^= 1;
    OK(row_resume(&wrong, place->store, &upload, &err));
    OK(row_commit(&blob, upload, &digest, &err));
    blob_upload_close(upload);
    OK(blob_upload_discard(place->store, str_from(wrong.id), wrong.stage, STR(""), &err));
    assert_there(place, 0, 0);
}

/* ---- Removing and walking ---- */

static void discarding_removes_every_kind_of_stage(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const size_t sizes[] = {1, HELD, HELD + 1, LARGE};
    for (size_t i = 0; i < 2 * ARRAY_SIZE(sizes); i++) {
        size_t size = sizes[i / 2];
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content_of(size));
        if (i % 2 == 1)
            patch(place, &row, STR("1234567890"));
        OK(blob_upload_discard(place->store, str_from(row.id), row.stage, STR(""), &err));
        OK(blob_upload_discard(place->store, str_from(row.id), row.stage, STR(""), &err));
        assert_there(place, 0, 0);
    }
}

/* The same digest was there already: what was just committed is not kept. */
static void a_blob_that_no_row_wants_is_dropped(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const size_t sizes[] = {1, HELD + 1};
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct oci_digest digest = sample_digest(sizes[i]);
        struct blob_row first;
        struct blob_row second;
        OK(row_push(&first, place->store, HASH_SHA256, content_of(sizes[i]), &digest, &err));
        auto_row row = {0};
        create_row(place, &row);
        patch(place, &row, content_of(sizes[i]));
        auto_upload upload = NULL;
        OK(row_resume(&row, place->store, &upload, &err));
        OK(row_commit(&second, upload, &digest, &err));
        assert_there(place, 2, 0);
        OK(blob_upload_drop(upload, first.ref.location, &err));
        assert_blob(place, &first, content_of(sizes[i]));
    }
}

struct found {
    size_t n;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    char stage[400];
    struct wall_us begun;
};
static int find_upload(void *context, struct str id, struct str stage, uint64_t size,
                       struct wall_us changed, struct err *err)
{
    (void)size;
    (void)err;
    struct found *found = context;
    found->n++;
    found->begun = changed;
    (void)snprintf(found->id, sizeof(found->id), STR_FMT, STR_ARG(id));
    (void)snprintf(found->stage, sizeof(found->stage), STR_FMT, STR_ARG(stage));
    return 0;
}

static void the_walk_finds_unfinished_uploads_and_spares_blobs(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    auto_row row = {0};
    struct wall_us before = clock_wall();
    create_row(place, &row);
    patch(place, &row, content_of(LARGE));
    struct found found = {0};
    const struct blob_walk walk = {.upload = find_upload};
    test_s3_reset();
    OK(blob_walk(place->store, &walk, &found, &err));
    ASSERT_CALLS("multipart_list"); /* blobs are not looked at */
    assert_int_equal(found.n, 1);
    assert_string_equal(found.id, row.id);
    assert_true(found.begun.us > before.us - 2 * CLOCK_SECOND_US);
    assert_true(found.begun.us < clock_wall().us + 2 * CLOCK_SECOND_US);
    /* What it says of it is no stage to go on from. */
    struct blob_upload *upload = NULL;
    struct upload_row listed = {.received = 0, .stage = str_from(found.stage)};
    memcpy(listed.id, row.id, sizeof(listed.id));
    FAILS(row_resume(&listed, place->store, &upload, &err), ERR_CORRUPT);

    /* Until it is discarded, it may have become a blob. */
    struct blob_row blob;
    struct oci_digest digest = sample_digest(LARGE);
    finish(place, &row, STR(""), &digest, &blob);
    OK(blob_upload_discard(place->store, str_from(found.id), str_from(found.stage), STR(""), &err));
    assert_blob(place, &blob, content_of(LARGE));

    /* And otherwise it is gone. */
    auto_row given_up = {0};
    create_row(place, &given_up);
    patch(place, &given_up, content_of(LARGE));
    OK(blob_walk(place->store, &walk, &found, &err));
    OK(blob_upload_discard(place->store, str_from(found.id), str_from(found.stage), STR(""), &err));
    assert_there(place, 0, 0);
}

static void the_walk_tells_ours_from_strays(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest digest = sample_digest(1);
    struct blob_row blob;
    OK(row_push(&blob, place->store, HASH_SHA256, content_of(1), &digest, &err));
    static const char *const strays[] = {
        "blobs/README",
        "blobs/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        NEVER_KEY,
        NEVER_KEY ".0123456",
        NEVER_KEY ".012345678",
        NEVER_KEY ".0123456G",
        NEVER_KEY ".0123456A",
        NEVER_KEY "-01234567",
        "blobs/01/" NEVER_ID ".01234567",
        "blobs/00/00000000-0000-1000-8000-000000000000.01234567",
        "blobs/00/00000000-0000-4000-8000-00000000000/.01234567",
    };
    struct s3 *s3 = test_s3_open("blob-s3");
    for (size_t i = 0; i < ARRAY_SIZE(strays); i++) {
        auto_call call;
        call_init(&call);
        assert_int_equal(s3_put(&call, s3, strays[i], STR("x"), NULL), 0);
    }
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, 1);
    assert_int_equal(counts.strays, ARRAY_SIZE(strays));
    for (size_t i = 0; i < ARRAY_SIZE(strays); i++) {
        bool seen = false;
        for (size_t k = 0; k < counts.strays; k++)
            seen = seen || strcmp(counts.stray[k], strays[i]) == 0;
        assert_true(seen);
        /* And it is never taken for a blob. */
        uint64_t size;
        struct blob_ref ref = {.size = 1, .location = str_from(strays[i])};
        FAILS(blob_stat(place->store, &ref, &size, &err), ERR_CORRUPT);
    }
    auto_call call;
    call_init(&call);
    assert_int_equal(s3_delete(&call, s3, strays, ARRAY_SIZE(strays)), 0);
    s3_free(s3);
}

/* ---- Damaged rows ---- */

static void a_location_that_is_none_is_asked_for_nowhere(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const struct str wrong[] = {
        {NULL, 0},
        {"", 0},
        {NEVER_KEY ".0123456\n", sizeof(NEVER_KEY ".0123456\n") - 1},
        {NEVER_KEY ".0123456\0", sizeof(NEVER_KEY ".0123456\0") - 1},
        {"../../other-bucket/secret", 25},
        {"blobs/00/../../0000-0000-4000-8000-000000000000.01234567", 54},
        {"/lobs/00/" NEVER_ID ".01234567", BUCKET_KEY_BYTES},
    };
    test_s3_reset();
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct blob_ref blob = {.digest = digest_of(ABC_256), .size = 3, .location = wrong[i]};
        struct blob_content content;
        uint64_t size;
        bool same;
        FAILS(blob_open(place->store, &blob, 0, 3, "test", &content, &err), ERR_CORRUPT);
        assert_non_null(strstr(err.say, ABC_256));
        FAILS(blob_open(place->store, &blob, 0, 0, "test", &content, &err), ERR_CORRUPT);
        FAILS(blob_stat(place->store, &blob, &size, &err), ERR_CORRUPT);
        FAILS(blob_verify(place->store, &blob, &same, &err), ERR_CORRUPT);
        FAILS(blob_delete(place->store, &blob, 1, &err), ERR_CORRUPT);
        FAILS(blob_read(place->store, &blob, NULL, NULL, &err), ERR_CORRUPT);
    }
    ASSERT_NO_CALLS();
}

#define KEY NEVER_KEY ".01234567"
#define TAG "5f363e0e58a95f06cbe9bbc662c5dfb6"

static void a_stage_that_is_none_is_asked_for_nowhere(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    static const char *const wrong[] = {
        "x",
        "1",
        "1\n",
        "2\ntail " KEY " 5\n",
        "1\ntail " KEY " 5",
        "1\ntail " KEY "  5\n",
        "1\ntail " KEY " 5 \n",
        "1\ntail " KEY " -5\n",
        "1\ntail " KEY " 18446744073709551616\n",
        "1\ntail " KEY "\n",
        "1\ntail " KEY " 5\ntail " KEY " 5\n",
        "1\ntail blobs/00/precious 5\n",
        "1\ntail " NEVER_KEY " 5\n",
        "1\ntail blobs/00/00000000-0000-4000-8000-000000000001.01234567 5\n", /* another's */
        "1\nmultipart " KEY "\n",
        "1\nmultipart " KEY " \n",
        "1\nmultipart " KEY " a b\n",
        "1\nmultipart " KEY " a\"b\n",
        "1\nmultipart " KEY " a\nmultipart " KEY " b\n",
        "1\nmultipart ../x a\n5 " TAG "\n",
        "1\n5 " TAG "\n",
        "1\nmultipart " KEY " a\n0 " TAG "\n",
        "1\nmultipart " KEY " a\n5" TAG "\n",
        "1\nmultipart " KEY " a\n5 \n",
        "1\nmultipart " KEY " a\n5 \x7f\n",
        "1\nmultipart " KEY " a\n\n",
        "1\nmultipart " KEY " a\n5 " TAG "\ntail " KEY " 5\n",
        "1\nmultipart " KEY " a\n9223372036854775807 " TAG "\n9223372036854775807 " TAG "\n",
        "1\nlisted " KEY " a\n5 " TAG "\n",
    };
    test_s3_reset();
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct blob_upload *upload = NULL;
        struct upload_row row = {.id = NEVER_ID, .received = 5, .stage = str_from(wrong[i])};
        FAILS(row_resume(&row, place->store, &upload, &err), ERR_CORRUPT);
        assert_non_null(strstr(err.say, NEVER_ID));
        FAILS(blob_upload_discard(place->store, STR(NEVER_ID), row.stage, STR(""), &err),
              ERR_CORRUPT);
    }
    ASSERT_NO_CALLS();
}

static void more_parts_than_there_can_be_are_too_large(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    const uint64_t offset = (uint64_t)BUCKET_PARTS_MAX * 5 * MIB;
    auto_buf stage = BUF_INIT(BUCKET_STAGE_BYTES_MAX);
    buf_printf(&stage, "1\nmultipart " KEY " never-begun\n");
    for (int i = 0; i < BUCKET_PARTS_MAX; i++)
        buf_printf(&stage, "%zu " TAG "\n", 5 * MIB);
    struct hash hash; /* as it is after so many bytes */
    hash_init(&hash, HASH_SHA256);
    hash.state.sha256.count = offset / SHA256_BLOCK_SIZE;
    struct upload_row row = {.id = NEVER_ID, .received = offset, .stage = buf_str(&stage)};
    row.state_n = hash_save(&hash, row.state);
    auto_upload upload = NULL;
    OK(row_resume(&row, place->store, &upload, &err));
    auto_arena arena = {0};
    assert_true(str_eq(blob_upload_stage(upload, &arena), row.stage));
    test_s3_reset();
    FAILS(write_from(upload, content_of(HELD + 1), &err), ERR_TOO_LARGE);
    assert_non_null(strstr(err.say, "10000 parts"));
    assert_non_null(strstr(err.say, "s3.part_size"));
    assert_non_null(strstr(err.say, "6291456"));
    ASSERT_NO_CALLS();

    /* And one more is one too many for a row, too. */
    buf_printf(&stage, "%zu " TAG "\n", 5 * MIB);
    row.stage = buf_str(&stage);
    row.received += 5 * MIB;
    struct blob_upload *other = NULL;
    FAILS(row_resume(&row, place->store, &other, &err), ERR_CORRUPT);
}

/* ---- The store itself ---- */

static void redirects_are_given_where_they_are_wanted(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    struct oci_digest digest = sample_digest(1);
    struct blob_row blob;
    OK(row_push(&blob, place->store, HASH_SHA256, content_of(1), &digest, &err));
    auto_arena arena = {0};
    struct str url = STR("untouched");
    OK(blob_redirect(place->store, &blob.ref, &arena, &url, &err));
    assert_null(url.p);

    const struct blob_s3_options options = {
        .part_bytes = PART, .redirect = true, .redirect_us = 60 * CLOCK_SECOND_US};
    struct blob_store *redirecting = blob_store_open_s3(test_s3_open("blob-s3"), &options);
    OK(blob_redirect(redirecting, &blob.ref, &arena, &url, &err));
    assert_non_null(strstr(str_z(&arena, url), blob.location));
    struct blob_ref damaged = {.digest = digest, .size = 1, .location = STR("blobs/x")};
    FAILS(blob_redirect(redirecting, &damaged, &arena, &url, &err), ERR_CORRUPT);
    assert_true(blob_store_is_remote(redirecting));
    assert_false(blob_store_excludes(redirecting));
    uint64_t free_bytes = 1;
    uint64_t total = 1;
    OK(blob_store_space(redirecting, &free_bytes, &total, &err));
    assert_int_equal(free_bytes + total, 0);
    blob_store_close(redirecting);
}

static void a_ping_is_a_put_and_a_delete(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    OK(blob_store_ping(place->store, &err));
    ASSERT_CALLS("put", "delete");
    assert_there(place, 0, 0);
}

static void a_look_is_a_get_that_finds_nothing(void **state)
{
    struct place *place = place_of(state);
    struct err err;
    OK(blob_store_look(place->store, &err));
    OK(blob_store_look(place->store, &err));
    ASSERT_CALLS("get", "get");
    assert_there(place, 0, 0);
}

static void who_gives_up_says_so_to_the_object_store(void **state)
{
    struct place *place = place_of(state);
    blob_store_give_up(place->store, (struct mono_us){12345});
    if (test_s3_record.in_memory)
        assert_int_equal(test_s3_record.give_up.us, 12345);
    blob_store_give_up(place->store, (struct mono_us){INT64_MAX});
}

/* ---- Many at once ---- */

struct pusher {
    struct place *place;
    pthread_t thread;
    unsigned number;
    struct blob_row blob;
    char failure[200]; /* empty: none */
};

/* Two chunks and a commit. */
static int push_chunks(struct pusher *pusher, struct str content, struct err *err)
{
    struct blob_store *store = pusher->place->store;
    struct oci_digest digest = oci_digest_of(HASH_SHA256, content);
    auto_row row = {0};
    struct blob_upload *made = NULL;
    if (blob_upload_create(store, HASH_SHA256, row.id, &made, err) < 0)
        return -1;
    row.state_n = blob_upload_hash_state(made, row.state);
    blob_upload_close(made);
    const size_t half = HELD + MIB * pusher->number / 2;
    for (int i = 0; i < 2; i++) {
        auto_upload upload = NULL;
        struct str chunk = i == 0 ? str_first(content, half) : str_from_at(content, half);
        if (row_resume(&row, store, &upload, err) < 0 ||
            blob_upload_write(upload, chunk.p, chunk.n, err) < 0 || row_save(&row, upload, err) < 0)
            return -1;
    }
    auto_upload upload = NULL;
    if (row_resume(&row, store, &upload, err) < 0 ||
        row_commit(&pusher->blob, upload, &digest, err) < 0)
        return -1;
    return blob_upload_drop(upload, pusher->blob.ref.location, err);
}
static void *push_in_thread(void *context)
{
    struct pusher *pusher = context;
    struct err err;
    if (push_chunks(pusher, str_from_at(content_of(LARGE), pusher->number), &err) < 0)
        (void)snprintf(pusher->failure, sizeof(pusher->failure), "%.60s (%.130s)", err.say,
                       err.why);
    return NULL;
}

static void many_push_large_blobs_at_once(void **state)
{
    struct place *place = place_of(state);
    struct pusher pushers[8] = {0};
    for (unsigned i = 0; i < ARRAY_SIZE(pushers); i++) {
        pushers[i].place = place;
        pushers[i].number = i;
        assert_int_equal(pthread_create(&pushers[i].thread, NULL, push_in_thread, &pushers[i]), 0);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(pushers); i++)
        assert_int_equal(pthread_join(pushers[i].thread, NULL), 0);
    assert_there(place, ARRAY_SIZE(pushers), 0);
    for (unsigned i = 0; i < ARRAY_SIZE(pushers); i++) {
        assert_string_equal(pushers[i].failure, "");
        assert_true(row_holds(&pushers[i].blob, place->store, str_from_at(content_of(LARGE), i)));
    }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, bucket_open, bucket_close)

/* An argument chooses among the tests, as in "*_threads_*". */
int main(int argc, char **argv)
{
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    log_setup(LOG_FORMAT_TEXT, LOG_LEVEL_ERROR); /* a bad network is what some of them are for */
    auto_mem char *bytes = mem_alloc(LARGEST);
    numbers_make(bytes, LARGEST);
    const struct CMUnitTest tests[] = {
        TEST(any_size_in_one_request),
        TEST(any_size_as_clients_push),
        TEST(any_size_in_chunks_of_any_size),
        TEST(what_the_object_store_is_asked),
        TEST(an_object_of_all_bytes_is_hashed_once),
        TEST(memory_is_taken_as_needed_and_given_back),
        TEST(an_upload_goes_on_from_the_last_acknowledgement),
        TEST(a_sync_that_no_row_heard_of_is_undone),
        TEST(a_commit_that_no_row_heard_of_is_done_again),
        TEST(lost_bytes_are_told),
        TEST(parts_whose_hash_cannot_be_read_are_started_again),
        TEST(who_comes_late_spoils_no_tail),
        TEST(what_was_not_acknowledged_is_written_over),
        TEST(the_same_part_of_a_late_writer_does_no_harm),
        TEST(a_part_of_another_writer_is_noticed),
        TEST(what_another_writer_completed_is_read_before_it_is_believed),
        TEST(two_that_begin_do_not_meet),
        TEST(a_digest_of_the_other_algorithm_is_made_of_the_whole_object),
        TEST(discarding_removes_every_kind_of_stage),
        TEST(a_blob_that_no_row_wants_is_dropped),
        TEST(the_walk_finds_unfinished_uploads_and_spares_blobs),
        TEST(the_walk_tells_ours_from_strays),
        TEST(a_location_that_is_none_is_asked_for_nowhere),
        TEST(a_stage_that_is_none_is_asked_for_nowhere),
        TEST(more_parts_than_there_can_be_are_too_large),
        TEST(redirects_are_given_where_they_are_wanted),
        TEST(a_ping_is_a_put_and_a_delete),
        TEST(a_look_is_a_get_that_finds_nothing),
        TEST(who_gives_up_says_so_to_the_object_store),
        TEST(many_push_large_blobs_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
