/* The documents that name settings name just those of settings.def, and say of them what the table
 * says. The argument is the root of the source tree. */
#include "config/config_int.h"

#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define DOCUMENT_BYTES_MAX 1000000

static const char *source_root;

/* owned */
static struct buf document(const char *path)
{
    auto_arena arena = {0};
    FILE *file = fopen(str_printf(&arena, "%s/%s", source_root, path).p, "re");
    if (file == NULL)
        fail_msg("%s is not there", path);
    struct buf text = BUF_INIT(DOCUMENT_BYTES_MAX);
    char piece[8192];
    for (size_t n = 1; n > 0; buf_add(&text, piece, n))
        n = fread(piece, 1, sizeof(piece), file);
    (void)fclose(file);
    assert_true(text.n > 0 && !text.overflow);
    return text;
}

static void must_have(const char *path, const struct buf *text, const struct buf *part)
{
    if (strstr(text->p, part->p) == NULL)
        fail_msg("%s does not have this:\n%s", path, part->p);
}

static bool is_of_name(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '_';
}

/* The next run of letters, digits, "-" and "_" from *at on. False: there is none. */
static bool word_next(const char **at, struct str *ret)
{
    while (**at != '\0' && !is_of_name(**at))
        (*at)++;
    struct str word = {*at, 0};
    while (is_of_name(**at)) {
        (*at)++;
        word.n++;
    }
    *ret = word;
    return word.n > 0;
}

static bool is_one_of(struct str name, const char *const *names)
{
    for (; *names != NULL; names++)
        if (str_eq(name, str_from(*names)))
            return true;
    return false;
}

/* Each word that looks like a flag or like a variable must be one of ours. */
static void names_are_known(const char *path, const struct buf *text)
{
    static const char *const other_flags[] = {
        "--config", "--version", "--help", "--repair", "--deep",
        /* of migrate, backup and restore */
        "--from", "--to", "--threads", "--verify", "--metadata-only", "--list", "--prune", "--at",
        "--overwrite",
        /* of import */
        "--repository", "--name", "--prefix", "--jobs", "--dry-run", "--username",
        "--password-file", "--password-env", "--docker-config", "--ca", "--insecure-http", NULL};
    static const char *const other_variables[] = {"HOLDFAST_CONFIG", "HOLDFAST_", NULL};
    /* Flags of other programs, and a mistake, in examples. */
    static const char *const foreign_flags[] = {"--dest-tls-verify", "--system", "--log-levl",
                                                NULL};

    const char *at = text->p;
    for (struct str word; word_next(&at, &word);) {
        /* mdoc has "Fl -name" for "--name". */
        bool mdoc = word.n > 1 && word.p - text->p > 3 && memcmp(word.p - 3, "Fl ", 3) == 0;
        auto_arena arena = {0};
        struct str flag = mdoc ? str_printf(&arena, "-" STR_FMT, STR_ARG(word)) : word;
        bool is_flag = flag.n > 2 && str_starts(flag, STR("--")) && isalpha(flag.p[2]);
        bool is_variable = str_starts(word, STR(VARIABLE_PREFIX));
        if ((is_flag && setting_find(flag, SPELLING_FLAG) == NULL &&
             !is_one_of(flag, other_flags) && !is_one_of(flag, foreign_flags)) ||
            (is_variable && setting_find(word, SPELLING_VARIABLE) == NULL &&
             !is_one_of(word, other_variables)))
            fail_msg("%s names \"" STR_FMT "\", which is not there", path, STR_ARG(flag));
    }
}

static void the_reference_has_a_row_for_each_setting(void **state)
{
    (void)state;
    static const char path[] = "docs/configuration.md";
    auto_buf text = document(path);
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        char flag[SETTING_NAME_BYTES];
        char variable[SETTING_NAME_BYTES];
        const char *quote = setting->fallback[0] != '\0' ? "`" : "";
        auto_buf row = BUF_INIT(1000);
        buf_printf(&row, "\n| `%s` | `%s` | `%s` | %s%s%s | ", setting->key,
                   setting_spell(setting, SPELLING_FLAG, flag).p,
                   setting_spell(setting, SPELLING_VARIABLE, variable).p, quote,
                   setting->fallback[0] != '\0' ? setting->fallback : "none", quote);
        setting_print_bounds(setting, &row);
        buf_printf(&row, " | %s |\n", setting->help);
        must_have(path, &text, &row);
    }
    names_are_known(path, &text);
}

static void the_manual_page_has_an_item_for_each_setting(void **state)
{
    (void)state;
    static const char path[] = "docs/holdfast.1";
    auto_buf text = document(path);
    names_are_known(path, &text);
    for (char *c = text.p; *c != '\0'; c++) /* lines of the page are filled */
        if (*c == '\n')
            *c = ' ';
    for (size_t i = 0; i < SETTINGS; i++) {
        char flag[SETTING_NAME_BYTES];
        (void)setting_spell(&settings[i], SPELLING_FLAG, flag);
        auto_buf item = BUF_INIT(1000);
        buf_printf(&item, " .It Fl %s %s%s ", flag + 1,
                   settings[i].kind == SETTING_KIND_FLAG ? "Ns Op = Ns Ar " : "Ar ",
                   setting_placeholder(&settings[i]));
        setting_describe(&settings[i], &item);
        buf_add_str(&item, STR(" ."));
        must_have(path, &text, &item);
    }
}

/* Whether some line has `name` as a whole word, and `part`. */
static bool has_line(const struct buf *text, struct str name, struct str part)
{
    struct str rest = buf_str(text);
    while (rest.n > 0) {
        struct str line = str_cut(&rest, '\n');
        const char *at = memmem(line.p, line.n, name.p, name.n);
        if (at != NULL && !is_of_name(at[name.n]) &&
            (part.n == 0 || memmem(line.p, line.n, part.p, part.n) != NULL))
            return true;
    }
    return false;
}

/* zsh has "\:" for a ':' that separates nothing. */
static void unescape_colons(struct buf *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n; i++)
        if (text->p[i] != '\\' || text->p[i + 1] != ':')
            text->p[n++] = text->p[i];
    text->p[n] = '\0';
    text->n = n;
}

static void completion_knows_each_flag_and_its_words(void **state)
{
    (void)state;
    static const char *const paths[] = {"packaging/completion/holdfast.bash",
                                        "packaging/completion/_holdfast"};
    for (size_t file = 0; file < ARRAY_SIZE(paths); file++) {
        auto_buf text = document(paths[file]);
        names_are_known(paths[file], &text);
        unescape_colons(&text);
        for (size_t i = 0; i < SETTINGS; i++) {
            char name[SETTING_NAME_BYTES];
            struct str flag = setting_spell(&settings[i], SPELLING_FLAG, name);
            auto_buf words = BUF_INIT(200); /* "none pull push" */
            buf_add_str(&words, settings[i].kind == SETTING_KIND_FLAG
                                    ? STR("true|false")
                                    : str_from(settings[i].words));
            for (size_t c = 0; c < words.n; c++)
                if (words.p[c] == '|')
                    words.p[c] = ' ';
            if (!has_line(&text, flag, STR("")))
                fail_msg("%s does not have %s", paths[file], name);
            if (!has_line(&text, flag, buf_str(&words)))
                fail_msg("%s does not complete %s with %s", paths[file], name, words.p);
        }
    }
}

static void the_example_is_what_is_printed_of_the_defaults(void **state)
{
    (void)state;
    struct config config;
    auto_buf complaints = BUF_INIT(CONFIG_COMPLAINTS_BYTES_MAX);
    assert_int_equal(config_load(&(struct config_sources){.file = NULL}, &config, &complaints), 0);
    auto_buf printed = BUF_INIT(DOCUMENT_BYTES_MAX);
    config_print(&config, &printed);
    config_done(&config);
    auto_buf example = document("packaging/holdfast.yaml");
    assert_string_equal(example.p, printed.p);
}

static void help_has_each_flag(void **state)
{
    (void)state;
    auto_buf help = BUF_INIT(DOCUMENT_BYTES_MAX);
    config_print_flags(&help);
    names_are_known("help", &help);
    for (size_t i = 0; i < SETTINGS; i++) {
        char name[SETTING_NAME_BYTES];
        assert_true(has_line(&help, setting_spell(&settings[i], SPELLING_FLAG, name),
                             str_from(setting_placeholder(&settings[i]))));
    }
    struct str rest = buf_str(&help);
    while (rest.n > 0)
        assert_true(str_cut(&rest, '\n').n <= 80);
}

int main(int argc, char **argv)
{
    source_root = argc > 1 ? argv[1] : ".";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_has_a_row_for_each_setting),
        cmocka_unit_test(the_manual_page_has_an_item_for_each_setting),
        cmocka_unit_test(completion_knows_each_flag_and_its_words),
        cmocka_unit_test(the_example_is_what_is_printed_of_the_defaults),
        cmocka_unit_test(help_has_each_flag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
