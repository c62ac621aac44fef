#include "blob/test_blob_int.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#define NEVER_ID "00000000-0000-4000-8000-000000000000"

/* ---- Pushing and pulling ---- */

/* The layout that operators are told, and that nobody writes to a blob by a slip. */
static void a_blob_is_a_read_only_file_named_by_its_digest(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    char path[512];
    place_path(place,
               "blobs/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
               path);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777 & ~0444u, 0);
    assert_int_equal(st.st_nlink, 1);

    /* Whatever a row says about where it is. */
    struct blob_ref blob = {
        .digest = abc, .size = 3, .location = STR("blobs/00/where the row before had it")};
    uint64_t size = 0;
    OK(blob_stat(place->store, &blob, &size, &err));
    assert_int_equal(size, 3);
    assert_false(blob_store_is_remote(place->store));
    assert_true(blob_store_excludes(place->store));
    auto_arena arena = {0};
    struct str url = STR("untouched");
    OK(blob_redirect(place->store, &blob, &arena, &url, &err));
    assert_null(url.p);
}

static void a_blob_that_is_there_already_is_success(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    for (int i = 0; i < 3; i++)
        OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, 1);
    assert_int_equal(counts.uploads, 0);
}

static int take_nothing(void *context, struct str piece, struct err *err)
{
    (void)context;
    (void)piece;
    (void)err;
    fail_msg("there is nothing to take");
    return 0;
}

static void a_deleted_blob_is_gone_and_deleting_again_is_success(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(remove_blob(place->store, &abc, &err));
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    struct blob_ref blob = ref_of(&abc, 3);
    struct blob_content opened = {.fd = -1};
    OK(blob_open(place->store, &blob, 0, 3, "test", &opened, &err));
    auto_fd fd = opened.fd;
    OK(remove_blob(place->store, &abc, &err));
    OK(remove_blob(place->store, &abc, &err));
    char bytes[4];
    assert_int_equal(read(fd, bytes, sizeof(bytes)), 3); /* a pull under way ends well */

    struct blob_content untouched = {.fd = -7};
    FAILS(blob_open(place->store, &blob, 0, 3, "test", &untouched, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, OCI_BLOB_UNKNOWN);
    assert_int_equal(untouched.fd, -7);
    bool same;
    uint64_t size;
    FAILS(blob_verify(place->store, &blob, &same, &err), ERR_NOT_FOUND);
    FAILS(blob_stat(place->store, &blob, &size, &err), ERR_NOT_FOUND);
    FAILS(blob_read(place->store, &blob, take_nothing, NULL, &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.say, ABC_256));
}

static void write_file(const struct place *place, const char *name, const char *text)
{
    char path[512];
    place_path(place, name, path);
    (void)chmod(path, 0640);
    auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

#define ABC_PATH "blobs/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static void a_damaged_blob_is_seen_and_a_shortened_one_replaced(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    struct blob_ref blob = ref_of(&abc, 3);
    struct blob_content opened;
    bool same = true;
    write_file(place, ABC_PATH, "abd");
    OK(blob_verify(place->store, &blob, &same, &err));
    assert_false(same);

    static const char *const lengths[] = {"", "abcd"};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        write_file(place, ABC_PATH, lengths[i]);
        FAILS(blob_open(place->store, &blob, 0, 3, "test", &opened, &err), ERR_CORRUPT);
        assert_non_null(strstr(err.say, "does not have its size"));
        FAILS(blob_read(place->store, &blob, take_nothing, NULL, &err), ERR_CORRUPT);
        same = true;
        OK(blob_verify(place->store, &blob, &same, &err));
        assert_false(same);
        OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
        assert_true(holds(place->store, &abc, STR("abc")));
        assert_int_equal(count(place->store).uploads, 0);
    }

    /* What is no file is an error of the storage, not an endless wait. */
    OK(remove_blob(place->store, &abc, &err));
    char path[512];
    place_path(place, ABC_PATH, path);
    assert_int_equal(mkfifo(path, 0600), 0);
    FAILS(blob_open(place->store, &blob, 0, 3, "test", &opened, &err), ERR_IO);
}

/* ---- Going on with an upload ---- */

static void a_hash_state_that_does_not_fit_is_not_believed(void **state)
{
    struct place *place = *state;
    struct err err;
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);
    for (int what = 0; what < 6; what++) {
        enum hash_algorithm algorithm = what % 2 == 0 ? HASH_SHA256 : HASH_SHA512;
        struct oci_digest digest = digest_of(what % 2 == 0 ? MILLION_A_256 : MILLION_A_512);
        char id[BLOB_UPLOAD_ID_BYTES + 1];
        struct blob_upload *first = NULL;
        uint8_t saved[HASH_SAVED_BYTES_MAX];
        OK(blob_upload_create(place->store, algorithm, id, &first, &err));
        OK(blob_upload_write(first, content.p, 100, &err));
        struct str hash_state = {(char *)saved, blob_upload_hash_state(first, saved)};
        if (what / 2 == 0)
            saved[5] ^= 1; /* another version of the library */
        else if (what / 2 == 1)
            hash_state.n = 0;
        /* else: the state of another offset than the one it is given for */
        OK(blob_upload_write(first, content.p, 400000, &err));
        OK(blob_upload_sync(first, &err));
        uint64_t offset = blob_upload_offset(first);
        blob_upload_close(first);

        auto_upload second = NULL;
        OK(reopen_upload(place->store, str_from(id), offset, hash_state, &second, &err));
        OK(blob_upload_write(second, content.p, content.n - offset, &err));
        OK(commit(second, &digest, &err));
        assert_true(holds(place->store, &digest, content));
        OK(remove_blob(place->store, &digest, &err));
    }
}

struct opener {
    struct blob_store *store;
    struct str id;
    int result;
    struct err err;
};

static void *open_upload(void *context)
{
    struct opener *opener = context;
    auto_upload upload = NULL;
    opener->result = reopen_upload(opener->store, opener->id, 0, STR(""), &upload, &opener->err);
    return NULL;
}

static void an_upload_belongs_to_one_at_a_time(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct blob_upload *first = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &first, &err));
    OK(blob_upload_write(first, "abc", 3, &err));

    struct opener opener = {.store = place->store, .id = str_from(id)};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, open_upload, &opener), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(opener.result, -1);
    assert_int_equal(opener.err.kind, ERR_BUSY);
    (void)open_upload(&opener); /* the same thread neither */
    assert_int_equal(opener.err.kind, ERR_BUSY);

    blob_upload_close(first);
    auto_upload second = NULL;
    OK(reopen_upload(place->store, str_from(id), 3, STR(""), &second, &err));
    (void)open_upload(&opener);
    assert_int_equal(opener.err.kind, ERR_BUSY);
    struct oci_digest abc = digest_of(ABC_256);
    OK(commit(second, &abc, &err)); /* the refused ones cut nothing off */
}

static void what_is_no_id_never_becomes_a_path(void **state)
{
    struct place *place = *state;
    struct err err;
    write_file(place, "precious", "x");
    static const struct str wrong[] = {
        {"", 0},
        {NULL, 0},
        {"..", 2},
        {"../precious", 11},
        {"../../../../../../../../../etc/passwd", 36},
        {"00000000-0000-1000-8000-000000000000", 36}, /* version 1 */
        {"00000000-0000-4000-c000-000000000000", 36}, /* another variant */
        {"0000000A-0000-4000-8000-000000000000", 36}, /* upper case */
        {"00000000-0000-4000-8000-00000000000", 35},
        {"00000000-0000-4000-8000-0000000000000", 37},
        {"00000000-0000-4000-8000-00000000000\0", 36},
        {"0000000000000-4000-8000-000000000000", 36},
        {"00000000/0000-4000-8000-000000000000", 36},
        {"{0000000-0000-4000-8000-00000000000}", 36}};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        struct blob_upload *upload = NULL;
        FAILS(reopen_upload(place->store, wrong[i], 0, STR(""), &upload, &err), ERR_INVALID);
        assert_string_equal(err.code, OCI_BLOB_UPLOAD_INVALID);
        FAILS(discard(place->store, wrong[i], &err), ERR_INVALID);
    }
    char path[512];
    place_path(place, "precious", path);
    assert_int_equal(access(path, F_OK), 0);
}

static void ids_are_random_uuids(void **state)
{
    struct place *place = *state;
    struct err err;
    char ids[64][BLOB_UPLOAD_ID_BYTES + 1];
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        auto_upload upload = NULL;
        OK(blob_upload_create(place->store, HASH_SHA256, ids[i], &upload, &err));
        /* RFC 9562, section 5.4: 8-4-4-4-12 digits, the version 4, the variant 8 to b. */
        assert_int_equal(strlen(ids[i]), 36);
        assert_int_equal(strspn(ids[i], "0123456789abcdef-"), 36);
        assert_true(ids[i][8] == '-' && ids[i][13] == '-' && ids[i][18] == '-' &&
                    ids[i][23] == '-');
        assert_int_equal(ids[i][14], '4');
        assert_non_null(strchr("89ab", ids[i][19]));
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(ids[i], ids[k]);
    }
    assert_int_equal(count(place->store).uploads, ARRAY_SIZE(ids));
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        OK(discard(place->store, str_from(ids[i]), &err));
    assert_int_equal(count(place->store).uploads, 0);
}

static void an_upload_that_is_over_is_not_found(void **state)
{
    struct place *place = *state;
    struct err err;
    struct blob_upload *upload = NULL;
    FAILS(reopen_upload(place->store, STR(NEVER_ID), 0, STR(""), &upload, &err), ERR_NOT_FOUND);
    assert_string_equal(err.code, OCI_BLOB_UPLOAD_UNKNOWN);
    OK(discard(place->store, STR(NEVER_ID), &err));

    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct oci_digest abc = digest_of(ABC_256);
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "abc", 3, &err));
    OK(commit(upload, &abc, &err));
    struct blob_upload *other = NULL;
    FAILS(reopen_upload(place->store, str_from(id), 0, STR(""), &other, &err), ERR_BUSY);
    OK(discard(place->store, str_from(id), &err));
    FAILS(reopen_upload(place->store, str_from(id), 0, STR(""), &other, &err), ERR_NOT_FOUND);
    blob_upload_close(upload);
    FAILS(reopen_upload(place->store, str_from(id), 0, STR(""), &other, &err), ERR_NOT_FOUND);
    assert_true(holds(place->store, &abc, STR("abc")));

    /* Discarded under the hands of the one who writes it. */
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "abc", 3, &err));
    OK(discard(place->store, str_from(id), &err));
    OK(remove_blob(place->store, &abc, &err));
    FAILS(commit(upload, &abc, &err), ERR_NOT_FOUND);
    blob_upload_close(upload);
    assert_false(holds(place->store, &abc, STR("abc")));
}

static void lost_bytes_are_told(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct blob_upload *upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "abc", 3, &err));
    blob_upload_close(upload);
    FAILS(reopen_upload(place->store, str_from(id), 4, STR(""), &upload, &err), ERR_CORRUPT);
    FAILS(reopen_upload(place->store, str_from(id), UINT64_MAX, STR(""), &upload, &err),
          ERR_CORRUPT);

    /* Changed behind the back of the one who holds it: the hash says nothing about that. */
    OK(reopen_upload(place->store, str_from(id), 3, STR(""), &upload, &err));
    char name[64];
    (void)snprintf(name, sizeof(name), "uploads/%s", id);
    struct oci_digest abc = digest_of(ABC_256);
    write_file(place, name, "abcd");
    FAILS(commit(upload, &abc, &err), ERR_CORRUPT);
    blob_upload_close(upload);
    assert_false(holds(place->store, &abc, STR("abc")));
}

/* A crash between a commit and the discarding leaves one file with both names. Who comes back to
 * the upload gets what was acknowledged in a file of its own. */
static void an_upload_that_is_a_blob_already_is_left_alone(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    char blob[512];
    char upload_path[512];
    place_path(place, ABC_PATH, blob);
    place_path(place, "uploads/" NEVER_ID, upload_path);
    assert_int_equal(chmod(blob, 0640), 0);
    assert_int_equal(link(blob, upload_path), 0);
    struct blob_upload *upload = NULL;
    OK(reopen_upload(place->store, STR(NEVER_ID), 1, STR(""), &upload, &err));
    OK(blob_upload_write(upload, "xyz", 3, &err));
    blob_upload_close(upload);
    assert_true(holds(place->store, &abc, STR("abc")));
    assert_int_equal(count(place->store).uploads, 1);
    assert_int_equal(count(place->store).upload_bytes, 4);
}

/* ---- Walking ---- */

static void make_folder(const struct place *place, const char *name)
{
    char path[512];
    place_path(place, name, path);
    assert_int_equal(mkdir(path, 0750), 0);
}

static bool has_stray(const struct counts *counts, const char *path)
{
    for (size_t i = 0; i < counts->strays; i++)
        if (strcmp(counts->stray[i], path) == 0)
            return true;
    return false;
}

static void the_walk_tells_ours_from_strays(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    struct oci_digest abc_512 = digest_of(ABC_512);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc_512, &err));
    write_file(place, "uploads/" NEVER_ID, "abc");

    static const char *const files[] = {
        "blobs/README", "blobs/sha256/note", "blobs/sha256/ba/note", "uploads/.nfs0001",
        /* a blob's name in another's folder, in upper case, too short, of the other algorithm */
        "blobs/sha256/ba/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "blobs/sha256/ba/BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        "blobs/sha256/ba/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015a",
        "blobs/sha512/dd/ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"};
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        write_file(place, files[i], "x");
    static const char *const folders[] = {"blobs/md5", "blobs/sha256/BA", "blobs/sha256/abc",
                                          "blobs/sha256/ba/dir", "uploads/dir"};
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
        make_folder(place, folders[i]);
    char path[512];
    place_path(place, "uploads/11111111-1111-4111-9111-111111111111", path);
    assert_int_equal(symlink("/etc/passwd", path), 0);

    struct counts counts = count(place->store);
    assert_int_equal(counts.blobs, 2);
    assert_int_equal(counts.uploads, 1);
    for (size_t i = 0; i < ARRAY_SIZE(files); i++)
        assert_true(has_stray(&counts, files[i]));
    for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
        assert_true(has_stray(&counts, folders[i]));
    assert_true(has_stray(&counts, "uploads/11111111-1111-4111-9111-111111111111"));
    assert_int_equal(counts.strays, ARRAY_SIZE(files) + ARRAY_SIZE(folders) + 1);
}

struct seen {
    struct blob_store *store;
    size_t blobs;
    size_t uploads;
    struct oci_digest digest;
    struct wall_us blob_changed;
    uint64_t size;
    uint64_t upload_size;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct wall_us changed;
    size_t stop_after;
};

/* Removes everything else while the walk is under way. */
static int see_blob_and_empty_the_store(void *context, const struct oci_digest *digest,
                                        struct str location, uint64_t size, struct wall_us changed,
                                        struct err *err)
{
    struct seen *seen = context;
    assert_int_equal(location.n, 0);
    seen->blob_changed = changed;
    seen->digest = *digest;
    seen->size = size;
    if (seen->blobs++ > 0)
        return 0;
    for (unsigned i = 0; i < 300; i++) {
        struct oci_digest other = oci_digest_of(HASH_SHA256, (struct str){(char *)&i, sizeof(i)});
        if (remove_blob(seen->store, &other, err) < 0)
            return -1;
    }
    return 0;
}

static int see_upload(void *context, struct str id, struct str stage, uint64_t size,
                      struct wall_us changed, struct err *err)
{
    struct seen *seen = context;
    assert_int_equal(stage.n, 0);
    (void)snprintf(seen->id, sizeof(seen->id), STR_FMT, STR_ARG(id));
    seen->upload_size = size;
    seen->changed = changed;
    if (++seen->uploads == seen->stop_after)
        return err_set(err, ERR_TIMEOUT, "enough");
    return 0;
}

static void the_walk_reports_what_it_sees(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct wall_us before = clock_wall();
    auto_upload upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "ab", 2, &err));

    struct seen seen = {.store = place->store};
    struct blob_walk walk = {see_blob_and_empty_the_store, see_upload, NULL};
    OK(blob_walk(place->store, &walk, &seen, &err));
    assert_int_equal(seen.blobs, 1);
    assert_true(oci_digest_eq(&seen.digest, &abc));
    assert_int_equal(seen.size, 3);
    assert_true(seen.blob_changed.us > before.us - CLOCK_SECOND_US);
    assert_true(seen.blob_changed.us < clock_wall().us + CLOCK_SECOND_US);
    assert_int_equal(seen.uploads, 1);
    assert_string_equal(seen.id, id);
    assert_int_equal(seen.upload_size, 2);
    assert_true(seen.changed.us > before.us - CLOCK_SECOND_US);
    assert_true(seen.changed.us < clock_wall().us + CLOCK_SECOND_US);

    seen.stop_after = seen.uploads + 1;
    FAILS(blob_walk(place->store, &walk, &seen, &err), ERR_TIMEOUT);
    assert_string_equal(err.say, "enough");
}

static void what_vanishes_while_walking_is_passed_over(void **state)
{
    struct place *place = *state;
    struct err err;
    for (unsigned i = 0; i < 300; i++) {
        struct str content = {(char *)&i, sizeof(i)};
        struct oci_digest digest = oci_digest_of(HASH_SHA256, content);
        OK(push(place->store, HASH_SHA256, content, &digest, &err));
    }
    assert_int_equal(count(place->store).blobs, 300);
    struct seen seen = {.store = place->store};
    struct blob_walk walk = {see_blob_and_empty_the_store, NULL, NULL};
    OK(blob_walk(place->store, &walk, &seen, &err));
    assert_true(seen.blobs < 300);
    assert_int_equal(count(place->store).blobs, 0);
}

static void folders_that_were_tidied_away_are_made_again(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    OK(remove_blob(place->store, &abc, &err));
    char path[512];
    place_path(place, "blobs/sha256/ba", path);
    assert_int_equal(rmdir(path), 0);
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    assert_true(holds(place->store, &abc, STR("abc")));
}

/* ---- The store itself ---- */

static void a_ping_leaves_nothing(void **state)
{
    struct place *place = *state;
    struct err err;
    OK(blob_store_ping(place->store, &err));
    assert_int_equal(count(place->store).uploads, 0);

    char path[512];
    place_path(place, "uploads", path);
    assert_int_equal(rmdir(path), 0); /* the store's descriptor now leads to a removed folder */
    FAILS(blob_store_ping(place->store, &err), ERR_IO);
    assert_non_null(strstr(err.why, "uploads/"));
    assert_null(strstr(err.say, "uploads/"));
}

static void space_is_what_the_system_says(void **state)
{
    struct place *place = *state;
    struct err err;
    uint64_t free_bytes;
    uint64_t total;
    OK(blob_store_space(place->store, &free_bytes, &total, &err));
    struct statvfs space;
    assert_int_equal(statvfs(place->root, &space), 0);
    assert_int_equal(total, (uint64_t)space.f_blocks * space.f_frsize);
    assert_true(free_bytes > 0 && free_bytes <= total);
}

static void opening_says_what_is_wrong_and_what_to_do(void **state)
{
    struct place *place = *state;
    struct err err;
    struct blob_store *store;
    char path[512];
    place_path(place, "missing", path);
    FAILS(blob_store_open_fs(path, &store, &err), ERR_IO);
    assert_non_null(strstr(err.say, path));
    assert_non_null(strstr(err.say, "create the folder"));

    write_file(place, "file", "x");
    place_path(place, "file", path);
    FAILS(blob_store_open_fs(path, &store, &err), ERR_IO);
    assert_non_null(strstr(err.say, "move away"));

    make_folder(place, "other");
    write_file(place, "other/blobs", "x");
    place_path(place, "other", path);
    FAILS(blob_store_open_fs(path, &store, &err), ERR_IO);
    assert_non_null(strstr(err.say, "/other/blobs\""));
}

/* As a user without rights, in a child: the tests may run as root, whom no mode stops. */
static void opening_without_rights_names_the_folder(void **state)
{
    struct place *place = *state;
    assert_int_equal(chmod(place->root, 0755), 0);
    char uploads[512];
    place_path(place, "uploads", uploads);
    assert_int_equal(chmod(uploads, 0555), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct err err;
        struct blob_store *store;
        if (geteuid() == 0 &&
            (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534)))
            _exit(3);
        if (blob_store_open_fs(place->root, &store, &err) == 0)
            _exit(1);
        _exit(err.kind == ERR_IO && strstr(err.say, "/uploads\"") != NULL &&
                      strstr(err.say, "the right to") != NULL
                  ? 0
                  : 2);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(chmod(uploads, 0755), 0);
}

/* ---- On file systems of their own: a full one, a read-only one, two of them ---- */

static bool can_mount; /* written once, before the tests */

static void mount_or_skip(const char *path, unsigned long flags, const char *options)
{
    if (!can_mount || mount("tmpfs", path, "tmpfs", flags, options) < 0) {
        print_message("SKIPPED: mounting is not permitted here, run the tests as root\n");
        skip();
    }
}

static void a_full_disk_spoils_nothing_that_was_synced(void **state)
{
    struct place *place = *state;
    struct err err;
    mount_or_skip(place->root, 0, "size=2m,mode=700");
    place_reopen(place);
    auto_mem char *bytes = NULL;
    struct str content = million_a(&bytes);

    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct blob_upload *upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, content.p, 700001, &err));
    OK(blob_upload_sync(upload, &err));
    uint8_t saved[HASH_SAVED_BYTES_MAX];
    struct str hash_state = {(char *)saved, blob_upload_hash_state(upload, saved)};
    int failed = 0;
    uint64_t offset = 0;
    for (int i = 0; i < 10 && failed == 0; i++) {
        offset = blob_upload_offset(upload);
        failed = blob_upload_write(upload, content.p, content.n, &err);
    }
    assert_int_equal(failed, -1);
    assert_string_equal(err_kind_name(err.kind), "full");
    assert_int_equal(blob_upload_offset(upload), offset); /* not a byte of the failed piece */
    FAILS(blob_upload_write(upload, "x", 1, &err), ERR_FULL);
    FAILS(blob_upload_sync(upload, &err), ERR_FULL);
    struct oci_digest digest = digest_of(MILLION_A_256);
    FAILS(commit(upload, &digest, &err), ERR_FULL);
    blob_upload_close(upload);

    OK(reopen_upload(place->store, str_from(id), 700001, hash_state, &upload, &err));
    OK(blob_upload_write(upload, content.p, content.n - 700001, &err));
    OK(commit(upload, &digest, &err));
    blob_upload_close(upload);
    OK(discard(place->store, str_from(id), &err));
    assert_true(holds(place->store, &digest, content));

    /* No room even for a new upload's first byte: say so, and leave no name behind. */
    char filler[512];
    place_path(place, "filler", filler);
    auto_fd fd = open(filler, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, content.p, 4096) == 4096) {
    }
    FAILS(blob_store_ping(place->store, &err), ERR_FULL);
    assert_int_equal(count(place->store).uploads, 0);
    uint64_t free_bytes;
    uint64_t total;
    OK(blob_store_space(place->store, &free_bytes, &total, &err));
    assert_int_equal(free_bytes, 0);
    assert_int_equal(total, 2 * 1024 * 1024);
}

static void a_read_only_file_system_is_named(void **state)
{
    struct place *place = *state;
    struct err err;
    struct blob_store *store;
    mount_or_skip(place->root, 0, "size=1m,mode=700");
    assert_int_equal(mount(NULL, place->root, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    FAILS(blob_store_open_fs(place->root, &store, &err), ERR_IO); /* nothing there yet */
    assert_non_null(strstr(err.say, "for writing"));
    assert_int_equal(mount(NULL, place->root, NULL, MS_REMOUNT, NULL), 0);
    place_reopen(place);
    assert_int_equal(mount(NULL, place->root, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    FAILS(blob_store_open_fs(place->root, &store, &err), ERR_IO); /* and with all folders */
    assert_non_null(strstr(err.say, "for writing"));
    assert_non_null(strstr(err.say, place->root));
    FAILS(blob_store_ping(place->store, &err), ERR_IO);
}

static void two_file_systems_are_refused(void **state)
{
    struct place *place = *state;
    struct err err;
    struct blob_store *store;
    char uploads[512];
    place_path(place, "uploads", uploads);
    mount_or_skip(uploads, 0, "size=1m,mode=700");
    FAILS(blob_store_open_fs(place->root, &store, &err), ERR_IO);
    assert_non_null(strstr(err.say, "put both on one"));
    assert_int_equal(umount(uploads), 0);
}

static int place_unmount(void **state)
{
    struct place *place = *state;
    blob_store_close(TAKE(place->store));
    if (can_mount)
        (void)umount2(place->root, MNT_DETACH);
    return place_close(state);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, place_open, place_close)
#define TEST_MOUNTED(f) cmocka_unit_test_setup_teardown(f, place_open, place_unmount)

int main(void)
{
    /* Mounts of the tests are seen by this process alone, and end with it. */
    can_mount = unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
    const struct CMUnitTest tests[] = {
        TEST(a_blob_is_a_read_only_file_named_by_its_digest),
        TEST(a_blob_that_is_there_already_is_success),
        TEST(a_deleted_blob_is_gone_and_deleting_again_is_success),
        TEST(a_damaged_blob_is_seen_and_a_shortened_one_replaced),
        TEST(a_hash_state_that_does_not_fit_is_not_believed),
        TEST(an_upload_belongs_to_one_at_a_time),
        TEST(what_is_no_id_never_becomes_a_path),
        TEST(ids_are_random_uuids),
        TEST(an_upload_that_is_over_is_not_found),
        TEST(lost_bytes_are_told),
        TEST(an_upload_that_is_a_blob_already_is_left_alone),
        TEST(the_walk_tells_ours_from_strays),
        TEST(the_walk_reports_what_it_sees),
        TEST(what_vanishes_while_walking_is_passed_over),
        TEST(folders_that_were_tidied_away_are_made_again),
        TEST(a_ping_leaves_nothing),
        TEST(space_is_what_the_system_says),
        TEST(opening_says_what_is_wrong_and_what_to_do),
        TEST(opening_without_rights_names_the_folder),
        TEST_MOUNTED(a_full_disk_spoils_nothing_that_was_synced),
        TEST_MOUNTED(a_read_only_file_system_is_named),
        TEST_MOUNTED(two_file_systems_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
