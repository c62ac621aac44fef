/* What durability rests on: the order of the system calls, their failing one after the other, and
 * the process stopping between them. The linker leads the calls listed in meson.build through the
 * functions below (ld(1), --wrap). */
#include "blob/test_blob_int.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- The calls, recorded and failing ---- */

static struct {
    char calls[64][32]; /* "fsync ba": the call and the last name of the path */
    size_t n;
    size_t fail_at; /* the call of this number (from 1) fails; 0: none */
    int fail_with;
    bool fail_on;    /* and all after it */
    bool half_write; /* each pwrite writes only a part */
    uint64_t writeback_bytes;
} record;

/* Notes a call with the name of the file or folder behind its descriptor. */
static void note(const char *call, int fd)
{
    char link_name[64];
    char path[512];
    (void)snprintf(link_name, sizeof(link_name), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link_name, path, sizeof(path) - 1);
    path[n > 0 ? n : 0] = '\0';
    const char *last = strrchr(path, '/');
    const char *name = last != NULL ? last + 1 : path;
    /* An upload has a random name, the root a temporary one. */
    if (strlen(name) == BLOB_UPLOAD_ID_BYTES)
        name = "staged";
    if (record.n < ARRAY_SIZE(record.calls))
        (void)snprintf(record.calls[record.n], sizeof(record.calls[0]), "%s %.16s", call, name);
}

/* Whether this call is the one to fail. */
static bool fails(const char *call, int fd)
{
    note(call, fd);
    record.n++;
    if (record.fail_at == 0 || record.n < record.fail_at ||
        (record.n > record.fail_at && !record.fail_on))
        return false;
    errno = record.fail_with;
    return true;
}

int __real_fdatasync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_fdatasync(int fd)
{
    return fails("fdatasync", fd) ? -1 : __real_fdatasync(fd);
}

int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    return fails("fsync", fd) ? -1 : __real_fsync(fd);
}

int __real_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags);
int __wrap_linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    return fails("linkat", to_fd) ? -1 : __real_linkat(from_fd, from, to_fd, to, flags);
}

int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return fails("renameat", to_fd) ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

int __real_unlinkat(int fd, const char *name, int flags);
int __wrap_unlinkat(int fd, const char *name, int flags);
int __wrap_unlinkat(int fd, const char *name, int flags)
{
    return fails("unlinkat", fd) ? -1 : __real_unlinkat(fd, name, flags);
}

int __real_mkdirat(int fd, const char *name, mode_t mode);
int __wrap_mkdirat(int fd, const char *name, mode_t mode);
int __wrap_mkdirat(int fd, const char *name, mode_t mode)
{
    return fails("mkdirat", fd) ? -1 : __real_mkdirat(fd, name, mode);
}

ssize_t __real_pwrite64(int fd, const void *p, size_t n, off64_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off64_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    size_t part = record.half_write && n > 1 ? n / 2 : n;
    return fails("pwrite", fd) ? -1 : __real_pwrite64(fd, p, part, at);
}

int __real_ftruncate64(int fd, off64_t n);
int __wrap_ftruncate64(int fd, off64_t n);
int __wrap_ftruncate64(int fd, off64_t n)
{
    return fails("ftruncate", fd) ? -1 : __real_ftruncate64(fd, n);
}

int __real_sync_file_range(int fd, off64_t at, off64_t n, unsigned flags);
int __wrap_sync_file_range(int fd, off64_t at, off64_t n, unsigned flags);
int __wrap_sync_file_range(int fd, off64_t at, off64_t n, unsigned flags)
{
    assert_int_equal(at, record.writeback_bytes);
    record.writeback_bytes += (uint64_t)n;
    return __real_sync_file_range(fd, at, n, flags);
}

static void (*before_lock)(void *context); /* NULL: none; called once */
static void *before_lock_context;

int __real_flock(int fd, int operation);
int __wrap_flock(int fd, int operation);
int __wrap_flock(int fd, int operation)
{
    void (*hook)(void *) = before_lock;
    before_lock = NULL;
    if (hook != NULL)
        hook(before_lock_context);
    return __real_flock(fd, operation);
}

static void record_from_here(void)
{
    memset(&record, 0, sizeof(record));
}

static void assert_recorded(const char *const *expected, size_t n)
{
    for (size_t i = 0; i < n && i < record.n; i++)
        assert_string_equal(record.calls[i], expected[i]);
    assert_int_equal(record.n, n);
}
#define ASSERT_RECORDED(...)                                  \
    do {                                                      \
        static const char *const expected_[] = {__VA_ARGS__}; \
        assert_recorded(expected_, ARRAY_SIZE(expected_));    \
    } while (0)

/* ---- Order ---- */

static void bytes_are_durable_before_the_name_and_the_name_before_success(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    record_from_here();
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    ASSERT_RECORDED("pwrite staged", "fdatasync staged", "mkdirat sha256", "fsync sha256",
                    "linkat sha256", "fsync ba", "unlinkat uploads");

    /* Another thread may have named it and not come to the sync of the folder. */
    record_from_here();
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    ASSERT_RECORDED("pwrite staged", "fdatasync staged", "linkat sha256", "fsync ba",
                    "unlinkat uploads");

    /* Another process may have made the folder and not come to the sync of its parent. */
    place_reopen(place);
    record_from_here();
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    ASSERT_RECORDED("pwrite staged", "fdatasync staged", "mkdirat sha256", "fsync sha256",
                    "linkat sha256", "fsync ba", "unlinkat uploads");
}

static void opening_makes_the_folders_durable(void **state)
{
    struct place *place = *state;
    const char *root = strrchr(place->root, '/') + 1;
    char root_is_synced[32];
    (void)snprintf(root_is_synced, sizeof(root_is_synced), "fsync %s", root);
    for (int i = 0; i < 2; i++) { /* new or not */
        record_from_here();
        place_reopen(place);
        assert_int_equal(record.n, 6);
        assert_string_equal(record.calls[4], root_is_synced);
        assert_string_equal(record.calls[5], "fsync blobs");
    }
}

static void an_acknowledged_upload_can_be_found_again(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct blob_upload *upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    blob_upload_close(upload);
    OK(reopen_upload(place->store, str_from(id), 0, STR(""), &upload, &err));
    OK(blob_upload_write(upload, "a", 1, &err));
    record_from_here();
    OK(blob_upload_sync(upload, &err));
    ASSERT_RECORDED("fdatasync staged", "fsync uploads");
    OK(blob_upload_write(upload, "b", 1, &err));
    record_from_here();
    OK(blob_upload_sync(upload, &err));
    ASSERT_RECORDED("fdatasync staged"); /* its name is durable since the first time */
    blob_upload_close(upload);

    OK(reopen_upload(place->store, str_from(id), 2, STR(""), &upload, &err));
    OK(blob_upload_write(upload, "c", 1, &err));
    record_from_here();
    OK(blob_upload_sync(upload, &err));
    ASSERT_RECORDED("fdatasync staged");
    blob_upload_close(upload);
}

static void a_large_upload_goes_to_the_disk_as_it_comes(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    auto_upload upload = NULL;
    auto_mem char *piece = mem_zalloc(256 * 1024);
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    record_from_here();
    for (int i = 0; i < 4 * 20; i++)
        OK(blob_upload_write(upload, piece, 256 * 1024, &err));
    /* Nothing before a few MiB are there, and little is left for the sync. */
    assert_true(record.writeback_bytes >= 16 * 1024 * 1024);
    assert_true(record.writeback_bytes <= 20 * 1024 * 1024);
    assert_int_equal(record.n, 80);
}

/* ---- Two at one upload ---- */

static void commit_and_close(void *context)
{
    struct err err;
    struct blob_upload *upload = context;
    struct oci_digest abc = digest_of(ABC_256);
    OK(commit(upload, &abc, &err));
    blob_upload_close(upload);
}

/* The second has opened the staged file when the first makes a blob of it and lets go of the lock:
 * the second then holds the lock on a committed blob, and must not cut it to its own offset. It
 * gets a file of its own. */
static void who_comes_late_to_an_upload_does_not_touch_the_blob(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    struct blob_upload *first = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &first, &err));
    OK(blob_upload_write(first, "abc", 3, &err));
    before_lock = commit_and_close;
    before_lock_context = first;
    struct blob_upload *second = NULL;
    OK(reopen_upload(place->store, str_from(id), 0, STR(""), &second, &err));
    assert_null(before_lock);
    OK(blob_upload_write(second, "xyz", 3, &err));
    blob_upload_close(second);
    struct oci_digest abc = digest_of(ABC_256);
    assert_true(holds(place->store, &abc, STR("abc")));
}

/* ---- Failing ---- */

static void short_writes_go_on(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    record_from_here();
    record.half_write = true;
    OK(push(place->store, HASH_SHA256, STR("abc"), &abc, &err));
    record.half_write = false;
    assert_true(holds(place->store, &abc, STR("abc")));
    assert_string_equal(record.calls[1], "pwrite staged");
}

/* Stages "ab", durable and acknowledged. */
static void stage_ab(struct place *place, char id[BLOB_UPLOAD_ID_BYTES + 1],
                     uint8_t saved[HASH_SAVED_BYTES_MAX], struct str *ret_state)
{
    struct err err;
    auto_upload upload = NULL;
    OK(blob_upload_create(place->store, HASH_SHA256, id, &upload, &err));
    OK(blob_upload_write(upload, "ab", 2, &err));
    OK(blob_upload_sync(upload, &err));
    *ret_state = (struct str){(char *)saved, blob_upload_hash_state(upload, saved)};
}

/* The n-th call fails, for every n until everything went well: what was acknowledged is there, no
 * half blob has the name, and the same push then succeeds. */
static void fail_every_call(struct place *place, int number, enum err_kind expected)
{
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    bool finished = false;
    for (size_t n = 1; !finished; n++) {
        assert_true(n < 20);
        place_reopen(place);
        OK(remove_blob(place->store, &abc, &err));
        char id[BLOB_UPLOAD_ID_BYTES + 1];
        uint8_t saved[HASH_SAVED_BYTES_MAX];
        struct str hash_state;
        stage_ab(place, id, saved, &hash_state);

        struct blob_upload *upload = NULL;
        OK(reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err));
        record_from_here();
        record.half_write = true;
        record.fail_at = n;
        record.fail_with = number;
        bool written = blob_upload_write(upload, "c", 1, &err) == 0;
        bool synced = written && blob_upload_sync(upload, &err) == 0;
        bool committed = synced && commit(upload, &abc, &err) == 0;
        finished = record.n < n;
        record_from_here();
        if (!committed) {
            assert_string_equal(err_kind_name(err.kind), err_kind_name(expected));
            assert_int_equal(blob_upload_offset(upload), written ? 3 : 2);
            FAILS(blob_upload_write(upload, "x", 1, &err), expected);
            FAILS(blob_upload_sync(upload, &err), expected);
            FAILS(commit(upload, &abc, &err), expected);
        }
        blob_upload_close(upload);

        bool named = holds(place->store, &abc, STR("abc"));
        assert_true(named || !committed);
        /* Whatever happened, the client goes on where it was. */
        OK(reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err));
        assert_int_equal(holds(place->store, &abc, STR("abc")), named); /* not cut */
        OK(blob_upload_write(upload, "c", 1, &err));
        OK(commit(upload, &abc, &err));
        blob_upload_close(upload);
        OK(discard(place->store, str_from(id), &err));
        assert_true(holds(place->store, &abc, STR("abc")));
        struct counts counts = count(place->store);
        assert_int_equal(counts.blobs, 1);
        assert_int_equal(counts.uploads, 0);
    }
}

static void any_failing_call_leaves_nothing_or_the_whole_blob(void **state)
{
    fail_every_call(*state, EIO, ERR_IO);
    fail_every_call(*state, ENOSPC, ERR_FULL);
    fail_every_call(*state, EDQUOT, ERR_FULL);
}

static void a_write_that_fails_half_way_is_cut_back(void **state)
{
    struct place *place = *state;
    struct err err;
    char id[BLOB_UPLOAD_ID_BYTES + 1];
    uint8_t saved[HASH_SAVED_BYTES_MAX];
    struct str hash_state;
    stage_ab(place, id, saved, &hash_state);
    for (int cut_fails = 0; cut_fails < 2; cut_fails++) {
        struct blob_upload *upload = NULL;
        OK(reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err));
        record_from_here();
        record.half_write = true;
        record.fail_at = 3; /* after 4 and 2 of the 8 bytes */
        record.fail_with = ENOSPC;
        record.fail_on = cut_fails == 1; /* what remains then is cut when it is opened again */
        FAILS(blob_upload_write(upload, "12345678", 8, &err), ERR_FULL);
        assert_non_null(strstr(err.why, "at byte 8"));
        assert_string_equal(record.calls[3], "ftruncate staged");
        assert_int_equal(strstr(err.why, "nor cut it back") != NULL, cut_fails);
        assert_int_equal(blob_upload_offset(upload), 2);
        record_from_here();
        blob_upload_close(upload);
    }
    struct blob_upload *upload = NULL;
    struct oci_digest abc = digest_of(ABC_256);
    OK(reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err));
    OK(blob_upload_write(upload, "c", 1, &err));
    OK(commit(upload, &abc, &err));
    blob_upload_close(upload);
    assert_true(holds(place->store, &abc, STR("abc")));
}

/* ---- Stopping ---- */

#ifdef HOLDFAST_TEST_HOOKS
/* In a child: goes on with the upload and commits it, or is stopped on the way. */
static void commit_in_child(struct place *place, const char *id, struct str hash_state,
                            const char *point)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct err err;
        struct blob_upload *upload = NULL;
        struct oci_digest abc = digest_of(ABC_256);
        (void)setenv("HOLDFAST_TEST_CRASH", point, 1);
        if (reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err) < 0 ||
            blob_upload_write(upload, "c", 1, &err) < 0 || blob_upload_sync(upload, &err) < 0)
            _exit(1);
        _exit(commit(upload, &abc, &err) == 0 ? 2 : 3); /* the point was not passed */
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

static void a_stop_anywhere_leaves_nothing_or_the_whole_blob(void **state)
{
    struct place *place = *state;
    struct err err;
    struct oci_digest abc = digest_of(ABC_256);
    static const struct {
        const char *point;
        bool named;
    } points[] = {{"blob.staged", false}, {"blob.synced", false}, {"blob.folder_made", false},
                  {"blob.named", true},   {"blob.durable", true}, {"blob.committed", true}};
    for (size_t i = 0; i < ARRAY_SIZE(points); i++) {
        char id[BLOB_UPLOAD_ID_BYTES + 1];
        uint8_t saved[HASH_SAVED_BYTES_MAX];
        struct str hash_state;
        place_reopen(place); /* which knows of no folder yet */
        stage_ab(place, id, saved, &hash_state);
        commit_in_child(place, id, hash_state, points[i].point);
        place_reopen(place);
        assert_int_equal(holds(place->store, &abc, STR("abc")), points[i].named);

        /* The client comes back to where it was. */
        struct blob_upload *upload = NULL;
        OK(reopen_upload(place->store, str_from(id), 2, hash_state, &upload, &err));
        assert_int_equal(holds(place->store, &abc, STR("abc")), points[i].named); /* not cut */
        OK(blob_upload_write(upload, "c", 1, &err));
        OK(commit(upload, &abc, &err));
        blob_upload_close(upload);
        OK(discard(place->store, str_from(id), &err));
        assert_true(holds(place->store, &abc, STR("abc")));
        struct counts counts = count(place->store);
        assert_int_equal(counts.blobs, 1);
        assert_int_equal(counts.uploads, 0);
        assert_int_equal(counts.strays, 0);
        OK(remove_blob(place->store, &abc, &err));
    }
}
#else
static void a_stop_anywhere_leaves_nothing_or_the_whole_blob(void **state)
{
    (void)state;
    print_message("SKIPPED: crash points need a build with -Dtest_hooks=true\n");
    skip();
}
#endif

#define TEST(f) cmocka_unit_test_setup_teardown(f, place_open, place_close)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(bytes_are_durable_before_the_name_and_the_name_before_success),
        TEST(opening_makes_the_folders_durable),
        TEST(an_acknowledged_upload_can_be_found_again),
        TEST(a_large_upload_goes_to_the_disk_as_it_comes),
        TEST(who_comes_late_to_an_upload_does_not_touch_the_blob),
        TEST(short_writes_go_on),
        TEST(any_failing_call_leaves_nothing_or_the_whole_blob),
        TEST(a_write_that_fails_half_way_is_cut_back),
        TEST(a_stop_anywhere_leaves_nothing_or_the_whole_blob),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
