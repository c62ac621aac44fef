/* Values: from text into their field, and back. */
#include "config/config_int.h"

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first. "K" and "M" alone are left out on purpose: they mean 1000 to some and 1024 to
 * others. */
static const struct unit sizes[] = {
    {"TiB", UINT64_C(1) << 40},
    {"GiB", UINT64_C(1) << 30},
    {"MiB", UINT64_C(1) << 20},
    {"KiB", UINT64_C(1) << 10},
    {"TB", 1000000000000},
    {"GB", 1000000000},
    {"MB", 1000000},
    {"kB", 1000},
    {"KB", 1000},
    {"B", 1},
};
static const struct unit times[] = {
    {"d", UINT64_C(86400000000)},
    {"h", UINT64_C(3600000000)},
    {"m", 60000000},
    {"s", 1000000},
    {"ms", 1000},
};

static void *field_of(struct config *config, const struct setting *setting)
{
    return (char *)config + setting->offset;
}
static const void *field_in(const struct config *config, const struct setting *setting)
{
    return (const char *)config + setting->offset;
}

size_t *setting_count(struct config *config, const struct setting *setting)
{
    return (size_t *)(void *)((char *)config + setting->list->count_offset);
}

/* The next code point of UTF-8 (RFC 3629). False: it is broken. */
static bool utf8_eat(struct str *s, uint32_t *ret)
{
    static const uint32_t least_of_length[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char first = (unsigned char)s->p[0];
    size_t length = first < 0x80 ? 1 : first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if ((first >= 0x80 && first < 0xC2) || first > 0xF4 || s->n < length)
        return false;
    uint32_t point = length == 1 ? first : first & (0xFFU >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (((unsigned char)s->p[i] & 0xC0) != 0x80)
            return false;
        point = point << 6 | ((unsigned char)s->p[i] & 0x3FU);
    }
    if (point < least_of_length[length] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF))
        return false;
    *s = str_from_at(*s, length);
    *ret = point;
    return true;
}

/* One line of printable text, so that it can stand in a YAML file and in a complaint as it is. */
bool config_is_printable(struct str s)
{
    while (s.n > 0) {
        uint32_t c;
        if (!utf8_eat(&s, &c) || c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x2028 ||
            c == 0x2029 || c == 0xFEFF || c == 0xFFFE || c == 0xFFFF)
            return false;
    }
    return true;
}

const char *config_quote(struct arena *arena, struct str text)
{
    const size_t shown_max = 80;
    auto_buf masked = BUF_INIT(2 * text.n + 2 * strlen(CONFIG_MASK));
    config_add_masked(&masked, text);
    text = buf_str(&masked);
    struct str shown = str_first(text, shown_max);
    while (shown.n > 0 && shown.n < text.n && ((unsigned char)text.p[shown.n] & 0xC0) == 0x80)
        shown.n--; /* do not cut a character in two */

    auto_buf quoted = BUF_INIT(6 * shown_max + 16);
    buf_add_json(&quoted, shown);
    if (shown.n < text.n)
        buf_add_str(&quoted, STR("…"));
    return str_z(arena, buf_str(&quoted));
}

static const struct unit *unit_find(const struct unit *units, size_t n, struct str name)
{
    for (size_t i = 0; i < n; i++)
        if (str_eq(str_from(units[i].name), name))
            return &units[i];
    return NULL;
}

/* "4MiB", "500kB", "1024". */
static bool size_parse(struct str text, uint64_t *ret)
{
    uint64_t value;
    if (!str_eat_u64(&text, INT64_MAX, &value))
        return false;
    if (text.n > 0) {
        const struct unit *unit = unit_find(sizes, ARRAY_SIZE(sizes), text);
        if (unit == NULL || __builtin_mul_overflow(value, unit->factor, &value))
            return false;
    }
    *ret = value;
    return value <= INT64_MAX;
}

/* "90s", "1h30m", "250ms", "0": each unit at most once, larger ones first. */
static bool time_parse(struct str text, uint64_t *ret)
{
    uint64_t total = 0;
    const struct unit *left = times; /* units that may still come */
    bool bare_zero = str_eq(text, STR("0"));
    while (text.n > 0 && !bare_zero) {
        uint64_t value;
        if (!str_eat_u64(&text, INT64_MAX, &value))
            return false;
        size_t letters = 0;
        while (letters < text.n && text.p[letters] >= 'a' && text.p[letters] <= 'z')
            letters++;
        const struct unit *unit =
            unit_find(left, (size_t)(times + ARRAY_SIZE(times) - left), str_first(text, letters));
        if (unit == NULL || __builtin_mul_overflow(value, unit->factor, &value) ||
            !num_add(total, value, &total))
            return false;
        left = unit + 1;
        text = str_from_at(text, letters);
    }
    *ret = total;
    return (left != times || bare_zero) && total <= INT64_MAX;
}

static bool number_parse(struct str text, uint64_t *ret)
{
    return str_eat_u64(&text, UINT64_MAX, ret) && text.n == 0;
}

typedef bool parse_fn(struct str text, uint64_t *ret);

static parse_fn *parser_of(const struct setting *setting)
{
    return setting->kind == SETTING_KIND_BYTES  ? size_parse
           : setting->kind == SETTING_KIND_TIME ? time_parse
                                                : number_parse;
}

/* Number, size or time. */
static int set_quantity(struct config *config, const struct setting *setting, struct str text,
                        struct err *err)
{
    parse_fn *parse = parser_of(setting);
    uint64_t low;
    uint64_t high;
    require(parse(str_from(setting->low), &low) && parse(str_from(setting->high), &high));

    uint64_t value;
    if (!parse(text, &value) || value < low || value > high) {
        const char *quoted = config_quote(&config->arena, text);
        if (setting->kind == SETTING_KIND_NUMBER)
            return err_set(err, ERR_INVALID, "%s is not a whole number from %s to %s", quoted,
                           setting->low, setting->high);
        return err_set(err, ERR_INVALID, "%s is not a %s from %s to %s, as %s", quoted,
                       setting->kind == SETTING_KIND_BYTES ? "size" : "time", setting->low,
                       setting->high, setting->fallback);
    }
    if (setting->kind == SETTING_KIND_TIME)
        *(int64_t *)field_of(config, setting) = (int64_t)value; /* high fits */
    else
        *(uint64_t *)field_of(config, setting) = value;
    return 0;
}

/* "none, pull or push" of "none|pull|push". */
static void print_words(const char *words, struct buf *out)
{
    struct str rest = str_from(words);
    buf_add_str(out, str_cut(&rest, '|'));
    while (rest.n > 0) {
        struct str word = str_cut(&rest, '|');
        buf_add_str(out, rest.n > 0 ? STR(", ") : STR(" or "));
        buf_add_str(out, word);
    }
}

/* Enumerations are stored through unsigned: all of them have that size. */
#define CONFIG_CHOICE(key, field, type, ...) \
    _Static_assert(sizeof(enum type) == sizeof(unsigned), key);
#include "config/settings.def"

static int set_choice(struct config *config, const struct setting *setting, struct str text,
                      struct err *err)
{
    struct str rest = str_from(setting->words);
    for (unsigned i = 0; rest.n > 0; i++) {
        if (str_eq(str_cut(&rest, '|'), text)) {
            memcpy(field_of(config, setting), &i, sizeof(i));
            return 0;
        }
    }
    auto_buf words = BUF_INIT(200);
    print_words(setting->words, &words);
    return err_set(err, ERR_INVALID, "%s is not %s", config_quote(&config->arena, text), words.p);
}

static int set_text(struct config *config, const struct setting *setting, struct str text,
                    struct err *err)
{
    if (text.n > TEXT_BYTES_MAX)
        return err_set(err, ERR_INVALID, "%s is longer than %d bytes",
                       config_quote(&config->arena, text), TEXT_BYTES_MAX);
    if (!config_is_printable(text))
        return err_set(err, ERR_INVALID, "%s is not one line of printable UTF-8 text",
                       config_quote(&config->arena, text));
    if (text.n == 0 && setting->fallback[0] != '\0')
        return err_set(err, ERR_INVALID, "\"\" is not a path");
    if (config_check_form(config, setting, text, err) != 0)
        return -1;
    *(struct str *)field_of(config, setting) = str_dup(&config->arena, text);
    return 0;
}

static int set_flag(struct config *config, const struct setting *setting, struct str text,
                    struct err *err)
{
    if (!str_eq(text, STR("true")) && !str_eq(text, STR("false")))
        return err_set(err, ERR_INVALID, "%s is not true or false",
                       config_quote(&config->arena, text));
    *(bool *)field_of(config, setting) = str_eq(text, STR("true"));
    return 0;
}

int setting_set(struct config *config, const struct setting *setting, struct str text,
                struct err *err)
{
    switch (setting->kind) {
    case SETTING_KIND_TEXT:
    case SETTING_KIND_WORD:
        return set_text(config, setting, text, err);
    case SETTING_KIND_URL:
    case SETTING_KIND_SECRET:
        return hidden_set(config, setting, text, err);
    case SETTING_KIND_NUMBER:
    case SETTING_KIND_BYTES:
    case SETTING_KIND_TIME:
        return set_quantity(config, setting, text, err);
    case SETTING_KIND_FLAG:
        return set_flag(config, setting, text, err);
    case SETTING_KIND_CHOICE:
        return set_choice(config, setting, text, err);
    case SETTING_KIND_LIST:
        if (*setting_count(config, setting) >= setting->list->max)
            return err_set(err, ERR_INVALID, "%s is one too many: at most %zu can be given",
                           config_quote(&config->arena, text), setting->list->max);
        return setting->list->add(config, text, err);
    }
    return err_set(err, ERR_INTERNAL, "setting \"%s\" is of no kind", setting->key);
}

/* In the largest unit that leaves no rest, or as the default is written. */
static void print_quantity(const struct setting *setting, uint64_t value, const struct unit *units,
                           size_t n_units, struct buf *out)
{
    uint64_t fallback;
    if (parser_of(setting)(str_from(setting->fallback), &fallback) && fallback == value) {
        buf_add_str(out, str_from(setting->fallback));
        return;
    }
    if (value == 0) {
        buf_add_char(out, '0');
        return;
    }
    size_t i = 0;
    while (i + 1 < n_units && value % units[i].factor != 0)
        i++;
    buf_printf(out, "%llu%s", (unsigned long long)(value / units[i].factor), units[i].name);
}

void setting_print(const struct config *config, const struct setting *setting, struct buf *out)
{
    const void *field = field_in(config, setting);
    switch (setting->kind) {
    case SETTING_KIND_TEXT:
    case SETTING_KIND_WORD:
        buf_add_json(out, *(const struct str *)field);
        break;
    case SETTING_KIND_URL:
    case SETTING_KIND_SECRET:
        hidden_print(config, setting, out);
        break;
    case SETTING_KIND_NUMBER:
        buf_printf(out, "%llu", (unsigned long long)*(const uint64_t *)field);
        break;
    case SETTING_KIND_BYTES:
        print_quantity(setting, *(const uint64_t *)field, sizes, ARRAY_SIZE(sizes), out);
        break;
    case SETTING_KIND_TIME:
        /* Whole milliseconds: nothing finer can be given. */
        print_quantity(setting, (uint64_t) * (const int64_t *)field, times, ARRAY_SIZE(times), out);
        break;
    case SETTING_KIND_FLAG:
        buf_add_str(out, *(const bool *)field ? STR("true") : STR("false"));
        break;
    case SETTING_KIND_CHOICE: {
        unsigned chosen;
        memcpy(&chosen, field, sizeof(chosen));
        struct str rest = str_from(setting->words);
        for (unsigned i = 0; i < chosen; i++)
            (void)str_cut(&rest, '|');
        buf_add_str(out, str_cut(&rest, '|'));
        break;
    }
    case SETTING_KIND_LIST:
        break;
    }
}

void setting_print_bounds(const struct setting *setting, struct buf *out)
{
    if (setting->low != NULL)
        buf_printf(out, "%s to %s", setting->low, setting->high);
    else if (setting->kind == SETTING_KIND_CHOICE)
        print_words(setting->words, out);
    else if (setting->kind == SETTING_KIND_FLAG)
        buf_add_str(out, STR("true or false"));
}

void setting_describe(const struct setting *setting, struct buf *out)
{
    buf_printf(out, "%s (", setting->help);
    size_t before = out->n;
    setting_print_bounds(setting, out);
    if (out->n > before)
        buf_add_str(out, STR("; "));
    buf_printf(out, "default: %s)", setting->fallback[0] != '\0' ? setting->fallback : "none");
}

const char *setting_placeholder(const struct setting *setting)
{
    switch (setting->kind) {
    case SETTING_KIND_TEXT:
        return "PATH";
    case SETTING_KIND_WORD:
        return setting->placeholder;
    case SETTING_KIND_URL:
        return "URL";
    case SETTING_KIND_SECRET:
        return "SECRET";
    case SETTING_KIND_NUMBER:
        return "NUMBER";
    case SETTING_KIND_BYTES:
        return "SIZE";
    case SETTING_KIND_TIME:
        return "TIME";
    case SETTING_KIND_FLAG:
        return "true|false";
    case SETTING_KIND_CHOICE:
        return setting->words;
    case SETTING_KIND_LIST:
        return setting->list->placeholder;
    }
    return "";
}
