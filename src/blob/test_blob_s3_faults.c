/* Every request to the object store fails, one after the other, done or not done: what was
 * acknowledged stays, the client comes back and succeeds, and nothing is left over that a sweep
 * does not find. In memory (test_s3_memory.c). */
#include "blob/blob_s3_int.h"
#include "blob/test_blob_int.h"
#include "blob/test_s3_int.h"

#define MIB ((size_t)1024 * 1024)
#define PART (5 * MIB)

/* The chunks of an upload; the last comes with the commit. Tails and parts and their changes. */
static const size_t chunks[] = {1000, PART + 1, MIB, 6 * MIB, 10};

static struct str content; /* made once, before the tests */
static struct oci_digest digest;

static int store_open(void **state)
{
    static struct place place;
    const struct blob_s3_options options = {.part_bytes = PART};
    place.store = blob_store_open_s3(test_s3_open("faults"), &options);
    *state = &place;
    test_s3_reset();
    return 0;
}
static int store_close(void **state)
{
    struct place *place = *state;
    blob_store_close(place->store);
    return 0;
}

/* One client, who goes on from what was acknowledged. */
struct client {
    struct place *place;
    struct upload_row row;
    size_t chunk; /* the next one */
    bool committed;
    struct blob_row blob;
};

static int send_chunk(struct client *client, struct err *err)
{
    auto_upload upload = NULL;
    if (row_resume(&client->row, client->place->store, &upload, err) < 0)
        return -1;
    struct str chunk = str_first(str_from_at(content, client->row.received), chunks[client->chunk]);
    if (blob_upload_write(upload, chunk.p, chunk.n, err) < 0)
        return -1;
    if (client->chunk + 1 < ARRAY_SIZE(chunks)) {
        if (row_save(&client->row, upload, err) < 0)
            return -1;
        client->chunk++;
        return 0;
    }
    if (row_commit(&client->blob, upload, &digest, err) < 0)
        return -1;
    client->committed = true;
    struct err ignored;
    bool left_over = blob_upload_drop(upload, client->blob.ref.location, &ignored) < 0;
    (void)left_over; /* the sweep finds it */
    return 0;
}

static void client_begin(struct client *client, struct place *place)
{
    struct err err;
    struct blob_upload *upload = NULL;
    *client = (struct client){.place = place};
    OK(blob_upload_create(place->store, HASH_SHA256, client->row.id, &upload, &err));
    client->row.state_n = blob_upload_hash_state(upload, client->row.state);
    blob_upload_close(upload);
}

static int sweep_object(void *context, const struct oci_digest *unknown, struct str location,
                        uint64_t size, struct wall_us changed, struct err *err)
{
    (void)unknown;
    (void)changed;
    const struct client *client = context;
    if (str_eq(location, client->blob.ref.location))
        return 0;
    struct blob_ref object = {.size = size, .location = location};
    return blob_delete(client->place->store, &object, 1, err);
}
static int sweep_upload(void *context, struct str id, struct str stage, uint64_t size,
                        struct wall_us changed, struct err *err)
{
    (void)size;
    (void)changed;
    const struct client *client = context;
    return blob_upload_discard(client->place->store, id, stage, STR(""), err);
}

/* All is well again: the client finishes, and a sweep removes all but its blob. */
static void end_well(struct client *client)
{
    struct place *place = client->place;
    struct err err;
    while (!client->committed)
        OK(send_chunk(client, &err));
    assert_true(row_holds(&client->blob, place->store, content));
    struct counts counts = count(place->store);
    assert_true(counts.blobs <= 4);
    assert_true(counts.uploads <= 1);
    const struct blob_walk sweep = {.blob = sweep_object, .upload = sweep_upload};
    OK(blob_walk(place->store, &sweep, client, &err));
    counts = count(place->store);
    assert_int_equal(counts.blobs, 1);
    assert_int_equal(counts.uploads, 0);
    assert_true(row_holds(&client->blob, place->store, content));
    OK(blob_delete(place->store, &client->blob.ref, 1, &err));
    arena_done(&client->row.arena);
}

/* `on`: the object store is away from the n-th request on, for one request of the client's;
 * otherwise one request fails. */
static void fail_every_call(struct place *place, bool done, bool on)
{
    struct err err;
    bool finished = false;
    size_t n = 1;
    for (; !finished; n++) {
        assert_true(n < 40);
        struct client client;
        client_begin(&client, place);
        test_s3_reset();
        test_s3_record.fail_at = n;
        test_s3_record.fail_on = on;
        test_s3_record.done = done;
        test_s3_record.fail_with = ERR_BUSY;
        bool failed = false;
        while (!client.committed && !failed) {
            size_t acknowledged = client.row.received;
            failed = send_chunk(&client, &err) < 0;
            assert_int_equal(failed ? client.row.received : acknowledged, acknowledged);
            if (failed)
                assert_string_equal(err_kind_name(err.kind), "busy");
        }
        finished = test_s3_record.n < n;
        test_s3_reset();
        end_well(&client);
    }
    assert_true(n > 12); /* so many at least there are in such an upload */
}

static void a_request_that_is_not_done(void **state)
{
    fail_every_call(*state, /* done= */ false, /* on= */ false);
}
static void a_request_that_is_done_and_not_answered(void **state)
{
    fail_every_call(*state, /* done= */ true, /* on= */ false);
}
static void an_object_store_that_goes_away(void **state)
{
    fail_every_call(*state, /* done= */ false, /* on= */ true);
}

static void a_failed_upload_takes_nothing_more(void **state)
{
    struct place *place = *state;
    struct err err;
    struct client client;
    client_begin(&client, place);
    auto_upload upload = NULL;
    OK(row_resume(&client.row, place->store, &upload, &err));
    OK(blob_upload_write(upload, "abc", 3, &err));
    test_s3_record.fail_at = 1;
    test_s3_record.fail_with = ERR_BUSY;
    FAILS(blob_upload_sync(upload, &err), ERR_BUSY);
    FAILS(blob_upload_write(upload, "x", 1, &err), ERR_BUSY);
    FAILS(blob_upload_sync(upload, &err), ERR_BUSY);
    struct blob_row blob;
    struct oci_digest abc = digest_of(ABC_256);
    FAILS(row_commit(&blob, upload, &abc, &err), ERR_BUSY);
    assert_int_equal(test_s3_record.n, 1);
    arena_done(&client.row.arena);
}

/* Who pushes is not told that he may not, when it is the registry that may not. */
static void a_refusal_by_the_object_store_is_none_of_the_client(void **state)
{
    struct place *place = *state;
    struct err err;
    struct blob_row blob;
    struct oci_digest abc = digest_of(ABC_256);
    OK(row_push(&blob, place->store, HASH_SHA256, STR("abc"), &abc, &err));
    test_s3_record.fail_at = 1;
    test_s3_record.fail_on = true;
    test_s3_record.fail_with = ERR_DENIED;
    struct blob_row other;
    uint64_t size;
    bool same;
    FAILS(row_push(&other, place->store, HASH_SHA256, STR("abc"), &abc, &err), ERR_IO);
    assert_non_null(strstr(err.why, "the object store is not there")); /* its own words */
    assert_null(strstr(err.say, "the object store is not there"));
    FAILS(blob_stat(place->store, &blob.ref, &size, &err), ERR_IO);
    FAILS(blob_verify(place->store, &blob.ref, &same, &err), ERR_IO);
    FAILS(blob_delete(place->store, &blob.ref, 1, &err), ERR_IO);
    FAILS(blob_store_ping(place->store, &err), ERR_IO);
    FAILS(blob_store_look(place->store, &err), ERR_IO);
    const struct blob_walk walk = {.upload = sweep_upload};
    FAILS(blob_walk(place->store, &walk, NULL, &err), ERR_IO);
    test_s3_reset();
    OK(blob_delete(place->store, &blob.ref, 1, &err));
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, store_open, store_close)

int main(void)
{
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_SIZE(chunks); i++)
        n += chunks[i];
    auto_mem char *bytes = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        bytes[i] = (char)(i * i / 7 + i / 4096);
    content = (struct str){bytes, n};
    digest = oci_digest_of(HASH_SHA256, content);
    const struct CMUnitTest tests[] = {
        TEST(a_request_that_is_not_done),
        TEST(a_request_that_is_done_and_not_answered),
        TEST(an_object_store_that_goes_away),
        TEST(a_failed_upload_takes_nothing_more),
        TEST(a_refusal_by_the_object_store_is_none_of_the_client),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
