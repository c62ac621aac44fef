/* What /readyz costs at an object store: it is asked seldom, and written to more seldom still. The
 * object store is one in memory, and the clock the test's. */
#include "registry/registry.h"
#include "test_s3_int.h"

#include "base/test_tree.h"
#include "blob/blob.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static int64_t ahead_us;

struct mono_us __real_clock_mono(void);
struct mono_us __wrap_clock_mono(void);
struct mono_us __wrap_clock_mono(void)
{
    return (struct mono_us){__real_clock_mono().us + ahead_us};
}

struct fixture {
    char folder[64];
    struct registry *registry;
    struct call call;
};

static int setup(void **state)
{
    struct fixture *f = mem_zalloc(sizeof(*f));
    (void)snprintf(f->folder, sizeof(f->folder), "/tmp/holdfast-ready-XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    call_init(&f->call);
    const struct blob_s3_options blobs = {.part_bytes = (size_t)5 * 1024 * 1024};
    const struct registry_options options = {
        .data = f->folder,
        .blobs = blob_store_open_s3(test_s3_open("ready"), &blobs),
        .readers = 4,
        .busy_us = CLOCK_SECOND_US,
    };
    assert_int_equal(registry_open(&options, &f->registry, &f->call.err), 0);
    test_s3_reset();
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    registry_close(f->registry);
    call_done(&f->call);
    (void)test_tree_remove(f->folder);
    free(f);
    return 0;
}

static void pass_seconds(int64_t n)
{
    ahead_us += n * CLOCK_SECOND_US;
}

/* Since the last look: "" for nothing, "put delete", … */
static void assert_asked(const char *wanted)
{
    auto_buf calls = BUF_INIT(1000);
    for (size_t i = 0; i < test_s3_record.n; i++)
        buf_printf(&calls, "%s%s", i > 0 ? " " : "", test_s3_record.calls[i]);
    assert_string_equal(calls.n > 0 ? calls.p : "", wanted);
    test_s3_reset();
}

static void assert_ready(struct fixture *f)
{
    if (registry_ready(&f->call, f->registry) < 0)
        fail_msg("%s: %s", f->call.err.say, f->call.err.why);
}

/* The next calls, from number `first` on, fail. */
static void fail_from(size_t first, enum err_kind kind)
{
    test_s3_record.fail_at = first;
    test_s3_record.fail_on = true;
    test_s3_record.fail_with = kind;
}

static void a_store_that_is_well_is_seldom_written(void **state)
{
    struct fixture *f = *state;
    assert_ready(f);
    assert_asked("put delete"); /* at the start */
    for (int i = 0; i < 4; i++) {
        pass_seconds(1);
        assert_ready(f);
    }
    assert_asked("");
    for (int i = 0; i < 48; i++) {
        pass_seconds(6);
        assert_ready(f);
        assert_ready(f);
        assert_asked("get");
    }
    pass_seconds(12); /* 304 in all */
    assert_ready(f);
    assert_asked("put delete");
    pass_seconds(6);
    assert_ready(f);
    assert_asked("get");
}

static void after_a_failure_it_is_written_at_once(void **state)
{
    struct fixture *f = *state;
    assert_ready(f);
    assert_asked("put delete");
    pass_seconds(6);
    fail_from(1, ERR_BUSY);
    assert_int_equal(registry_ready(&f->call, f->registry), -1);
    assert_int_equal(f->call.err.kind, ERR_BUSY);
    assert_asked("get"); /* who does not answer one question is not asked another */
    fail_from(1, ERR_BUSY);
    assert_int_equal(registry_ready(&f->call, f->registry), -1);
    assert_int_equal(f->call.err.kind, ERR_BUSY);
    assert_true(test_s3_record.n > 0);
    assert_string_equal(test_s3_record.calls[0], "put");
    test_s3_reset();
    assert_ready(f);
    assert_asked("put delete");
    pass_seconds(6);
    assert_ready(f);
    assert_asked("get");
}

static void a_store_that_takes_nothing_is_found_out(void **state)
{
    struct fixture *f = *state;
    assert_ready(f);
    assert_asked("put delete");
    pass_seconds(301);
    fail_from(1, ERR_FULL);
    assert_int_equal(registry_ready(&f->call, f->registry), -1);
    assert_int_equal(f->call.err.kind, ERR_FULL);
    test_s3_reset();
    pass_seconds(1);
    fail_from(1, ERR_FULL); /* until it is written, to read is not enough */
    assert_int_equal(registry_ready(&f->call, f->registry), -1);
    assert_string_equal(test_s3_record.calls[0], "put");
    test_s3_reset();
    assert_ready(f);
}

/* AWS answers 403 for what is not there to who has no s3:ListBucket. */
static void a_refusal_to_read_is_decided_by_writing(void **state)
{
    struct fixture *f = *state;
    assert_ready(f);
    assert_asked("put delete");
    pass_seconds(6);
    fail_from(1, ERR_DENIED);
    test_s3_record.fail_on = false;
    assert_ready(f);
    assert_asked("get put delete");
    pass_seconds(6);
    fail_from(1, ERR_DENIED);
    assert_int_equal(registry_ready(&f->call, f->registry), -1);
    test_s3_reset();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_store_that_is_well_is_seldom_written),
        TEST(after_a_failure_it_is_written_at_once),
        TEST(a_store_that_takes_nothing_is_found_out),
        TEST(a_refusal_to_read_is_decided_by_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
