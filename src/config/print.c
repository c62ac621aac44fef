/* The settings for people: the file of those in force, and the flags for --help. */
#include "config/config_int.h"

#define WIDTH 80

/* Fills lines with words, each line begun with `prefix`. */
static void add_wrapped(struct buf *out, const char *prefix, struct str text)
{
    size_t column = 0;
    while (text.n > 0) {
        struct str word = str_cut(&text, ' ');
        if (column > 0 && column + 1 + word.n > WIDTH) {
            buf_add_char(out, '\n');
            column = 0;
        }
        if (column == 0) {
            buf_add_str(out, str_from(prefix));
            column = strlen(prefix);
        } else {
            buf_add_char(out, ' ');
            column++;
        }
        buf_add_str(out, word);
        column += word.n;
    }
    buf_add_char(out, '\n');
}

static void add_description(struct buf *out, const char *prefix, const struct setting *setting)
{
    auto_buf text = BUF_INIT(1000);
    setting_describe(setting, &text);
    add_wrapped(out, prefix, buf_str(&text));
}

static void add_list(const struct config *config, const struct setting *setting, const char *indent,
                     struct buf *out)
{
    size_t n;
    memcpy(&n, (const char *)config + setting->list->count_offset, sizeof(n));
    if (n == 0)
        buf_add_str(out, STR(" []"));
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "\n%s  - ", indent);
        setting->list->print(config, i, out);
    }
    buf_add_char(out, '\n');
}

void config_print(const struct config *config, struct buf *out)
{
    buf_add_str(out, STR("# Settings of Holdfast. Each key can be left out: its default is used.\n"
                         "# Flags (--limits-connections) and variables "
                         "(HOLDFAST_LIMITS_CONNECTIONS) go before\n"
                         "# this file. See holdfast(1).\n"
                         "#\n"
                         "# On one machine none of them is needed. Many nodes have the same "
                         "settings, with\n"
                         "# metadata in PostgreSQL and blobs in S3. A secret is best given as "
                         "file:PATH, the\n"
                         "# path of a file that holds it.\n"));
    struct str section = {0};
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        struct str its = setting_section(setting);
        bool nested = its.n > 0;
        buf_add_char(out, '\n');
        if (nested && !str_eq(its, section))
            buf_printf(out, STR_FMT ":\n", STR_ARG(its));
        section = its;

        const char *indent = nested ? "  " : "";
        add_description(out, nested ? "  # " : "# ", setting);
        buf_printf(out, "%s%s:", indent, setting->key + (nested ? its.n + 1 : 0));
        if (setting->kind == SETTING_KIND_LIST) {
            add_list(config, setting, indent, out);
        } else {
            buf_add_char(out, ' ');
            setting_print(config, setting, out);
            buf_add_char(out, '\n');
        }
    }
}

void config_print_flags(struct buf *out)
{
    buf_add_str(out, STR("  --config FILE\n"));
    add_wrapped(out, "      ", STR("YAML file with settings (default: $HOLDFAST_CONFIG, or none)"));
    for (size_t i = 0; i < SETTINGS; i++) {
        const struct setting *setting = &settings[i];
        char flag[SETTING_NAME_BYTES];
        (void)setting_spell(setting, SPELLING_FLAG, flag);
        bool is_switch = setting->kind == SETTING_KIND_FLAG; /* its value may be left out */
        bool is_list = setting->kind == SETTING_KIND_LIST;
        buf_printf(out, "  %s%s%s%s\n", flag, is_switch ? "[=" : " ", setting_placeholder(setting),
                   is_switch ? "]"
                   : is_list ? "[,...]"
                             : "");
        add_description(out, "      ", setting);
    }
}
