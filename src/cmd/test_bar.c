/* The last line of a terminal, seen from the terminal's other end. */
#include "cmd/cmd.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define EMPTY "[                              ]"
#define HALF "[###############               ]"
#define FULL "[##############################]"
#define CLEAR "\r\x1b[K"

struct screen {
    int terminal; /* what a person would read */
    int stderr_before;
    char text[256];
};

static int open_screen(void **state)
{
    struct screen *screen = mem_zalloc(sizeof(*screen));
    screen->terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    assert_true(screen->terminal >= 0);
    assert_int_equal(grantpt(screen->terminal), 0);
    assert_int_equal(unlockpt(screen->terminal), 0);
    char name[128];
    assert_int_equal(ptsname_r(screen->terminal, name, sizeof(name)), 0);
    auto_fd end = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    screen->stderr_before = dup(STDERR_FILENO);
    assert_int_equal(dup2(end, STDERR_FILENO), STDERR_FILENO);
    *state = screen;
    return 0;
}

static int close_screen(void **state)
{
    struct screen *screen = *state;
    (void)dup2(screen->stderr_before, STDERR_FILENO);
    (void)close(screen->stderr_before);
    (void)close(screen->terminal);
    free(screen);
    return 0;
}

static const char *drawn(struct screen *screen, uint64_t done, uint64_t total)
{
    struct cmd_bar bar = cmd_bar_new();
    assert_true(cmd_bar_draw(&bar, "files", done, total));
    assert_false(cmd_bar_draw(&bar, "files", done, total)); /* so soon after */
    (void)fflush(stderr);
    /* It comes in as many pieces as it was written in; the sign is the last. */
    size_t n = 0;
    do {
        ssize_t more = read(screen->terminal, screen->text + n, sizeof(screen->text) - 1 - n);
        assert_true(more > 0);
        n += (size_t)more;
    } while (screen->text[n - 1] != '%');
    screen->text[n] = '\0';
    return screen->text;
}

static void shows_how_much_is_done(void **state)
{
    assert_string_equal(drawn(*state, 0, 8), CLEAR "files      " EMPTY "   0%");
    assert_string_equal(drawn(*state, 4, 8), CLEAR "files      " HALF "  50%");
    assert_string_equal(drawn(*state, 8, 8), CLEAR "files      " FULL " 100%");
}

static void rounds_down(void **state)
{
    assert_string_equal(drawn(*state, UINT64_MAX / 2, UINT64_MAX),
                        CLEAR "files      " HALF "  50%");
    assert_string_equal(drawn(*state, 999, 1000),
                        CLEAR "files      [############################# ]  99%");
}

/* More came than was counted. */
static void more_than_all_is_all(void **state)
{
    assert_string_equal(drawn(*state, 9, 8), CLEAR "files      " FULL " 100%");
}

static void an_unknown_total_is_not_done(void **state)
{
    assert_string_equal(drawn(*state, 0, 0), CLEAR "files      " EMPTY "   ?%");
    assert_string_equal(drawn(*state, 7, 0), CLEAR "files      " EMPTY "   ?%");
}

static void is_not_drawn_where_nobody_looks(void **state)
{
    (void)state;
    auto_fd nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_int_equal(dup2(nowhere, STDERR_FILENO), STDERR_FILENO);
    struct cmd_bar bar = cmd_bar_new();
    assert_false(cmd_bar_draw(&bar, "files", 1, 2));
}

#define ON_SCREEN(test) cmocka_unit_test_setup_teardown(test, open_screen, close_screen)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_SCREEN(shows_how_much_is_done),
        ON_SCREEN(rounds_down),
        ON_SCREEN(more_than_all_is_all),
        ON_SCREEN(an_unknown_total_is_not_done),
        ON_SCREEN(is_not_drawn_where_nobody_looks),
    };
    return cmocka_run_group_tests_name("bar", tests, NULL, NULL);
}
