/* The table of settings, and their names in three spellings. */
#include "config/config_int.h"

#define FIELD(field) offsetof(struct config, field)

const struct setting settings[SETTINGS] = {
#define CONFIG_TEXT(key_, field, fallback_, help_)  \
    [SETTING_##field] = {.key = (key_),             \
                         .kind = SETTING_KIND_TEXT, \
                         .offset = FIELD(field),    \
                         .fallback = (fallback_),   \
                         .help = (help_)},
#define CONFIG_WORD(key_, field, fallback_, placeholder_, help_) \
    [SETTING_##field] = {.key = (key_),                          \
                         .kind = SETTING_KIND_WORD,              \
                         .offset = FIELD(field),                 \
                         .fallback = (fallback_),                \
                         .placeholder = (placeholder_),          \
                         .help = (help_)},
#define HIDDEN(kind_, key_, field, fallback_, help_)         \
    [SETTING_##field] = {.key = (key_),                      \
                         .kind = (kind_),                    \
                         .offset = FIELD(field),             \
                         .file_offset = FIELD(field##_file), \
                         .fallback = (fallback_),            \
                         .help = (help_)},
#define CONFIG_URL(...) HIDDEN(SETTING_KIND_URL, __VA_ARGS__)
#define CONFIG_SECRET(...) HIDDEN(SETTING_KIND_SECRET, __VA_ARGS__)
#define RANGE(kind_, key_, field, fallback_, low_, high_, help_) \
    [SETTING_##field] = {.key = (key_),                          \
                         .kind = (kind_),                        \
                         .offset = FIELD(field),                 \
                         .fallback = (fallback_),                \
                         .low = (low_),                          \
                         .high = (high_),                        \
                         .help = (help_)},
#define CONFIG_NUMBER(...) RANGE(SETTING_KIND_NUMBER, __VA_ARGS__)
#define CONFIG_BYTES(...) RANGE(SETTING_KIND_BYTES, __VA_ARGS__)
#define CONFIG_TIME(...) RANGE(SETTING_KIND_TIME, __VA_ARGS__)
#define CONFIG_FLAG(key_, field, fallback_, help_)  \
    [SETTING_##field] = {.key = (key_),             \
                         .kind = SETTING_KIND_FLAG, \
                         .offset = FIELD(field),    \
                         .fallback = (fallback_),   \
                         .help = (help_)},
#define CONFIG_CHOICE(key_, field, type, fallback_, words_, help_) \
    [SETTING_##field] = {.key = (key_),                            \
                         .kind = SETTING_KIND_CHOICE,              \
                         .offset = FIELD(field),                   \
                         .fallback = (fallback_),                  \
                         .words = (words_),                        \
                         .help = (help_)},
#define CONFIG_LIST(key_, field, fallback_, help_)  \
    [SETTING_##field] = {.key = (key_),             \
                         .kind = SETTING_KIND_LIST, \
                         .fallback = (fallback_),   \
                         .help = (help_),           \
                         .list = &config_list_##field},
#include "config/settings.def"
};

struct str setting_spell(const struct setting *setting, enum spelling spelling,
                         char out[SETTING_NAME_BYTES])
{
    const char *prefix = spelling == SPELLING_FLAG       ? "--"
                         : spelling == SPELLING_VARIABLE ? VARIABLE_PREFIX
                                                         : "";
    int n = snprintf(out, SETTING_NAME_BYTES, "%s%s", prefix, setting->key);
    require(n > 0 && n < SETTING_NAME_BYTES);
    for (char *c = out + strlen(prefix); *c != '\0'; c++) {
        if (spelling == SPELLING_FLAG && (*c == '.' || *c == '_'))
            *c = '-';
        else if (spelling == SPELLING_VARIABLE)
            *c = *c == '.' ? '_' : *c >= 'a' && *c <= 'z' ? (char)(*c - 'a' + 'A') : *c;
    }
    return (struct str){out, (size_t)n};
}

const struct setting *setting_find(struct str name, enum spelling spelling)
{
    char spelt[SETTING_NAME_BYTES];
    for (size_t i = 0; i < SETTINGS; i++)
        if (str_eq(setting_spell(&settings[i], spelling, spelt), name))
            return &settings[i];
    return NULL;
}

struct str setting_section(const struct setting *setting)
{
    struct str key = str_from(setting->key);
    size_t dot = str_find(key, '.');
    return str_first(key, dot < key.n ? dot : 0);
}

const struct setting *setting_section_find(struct str section)
{
    for (size_t i = 0; i < SETTINGS && section.n > 0; i++)
        if (str_eq(setting_section(&settings[i]), section))
            return &settings[i];
    return NULL;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Insertions, deletions, replacements and swaps of neighbours (Damerau, restricted) that make `b`
 * of `a`. Texts that are too long for any name of ours are far from all of them. */
static size_t distance(struct str a, struct str b)
{
    if (a.n >= SETTING_NAME_BYTES || b.n >= SETTING_NAME_BYTES)
        return SETTING_NAME_BYTES;
    size_t rows[3][SETTING_NAME_BYTES];
    for (size_t j = 0; j <= b.n; j++)
        rows[0][j] = j;
    for (size_t i = 1; i <= a.n; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3]; /* of i - 1 */
        row[0] = i;
        for (size_t j = 1; j <= b.n; j++) {
            size_t changed = above[j - 1] + (a.p[i - 1] != b.p[j - 1]);
            row[j] = least(changed, 1 + least(above[j], row[j - 1]));
            if (i > 1 && j > 1 && a.p[i - 1] == b.p[j - 2] && a.p[i - 2] == b.p[j - 1])
                row[j] = least(row[j], rows[(i + 1) % 3][j - 2] + 1);
        }
    }
    return rows[a.n % 3][b.n];
}

/* "--connections" and "http.connections" mean "limits.connections": the last word is the same. */
static bool same_last_word(struct str wrong, struct str name, enum spelling spelling)
{
    while (spelling == SPELLING_KEY && str_find(wrong, '.') < wrong.n)
        (void)str_cut(&wrong, '.');
    if (wrong.n == 0 || name.n <= wrong.n || !str_ends(name, wrong))
        return false;
    char before = name.p[name.n - wrong.n - 1];
    return before == '.' || before == '-' || before == '_';
}

struct nearest {
    struct str wrong;
    enum spelling spelling;
    size_t limit; /* farther ones were not meant */
    size_t distance;
    char *name; /* of SETTING_NAME_BYTES */
};

static void consider(struct nearest *nearest, struct str name)
{
    size_t prefix = nearest->spelling == SPELLING_FLAG       ? 2
                    : nearest->spelling == SPELLING_VARIABLE ? strlen(VARIABLE_PREFIX)
                                                             : 0;
    struct str bare = str_from_at(name, prefix);
    size_t far = distance(nearest->wrong, bare);
    if (same_last_word(nearest->wrong, bare, nearest->spelling))
        far = least(far, nearest->limit);
    if (far >= nearest->distance)
        return;
    nearest->distance = far;
    require(name.p != NULL);
    memcpy(nearest->name, name.p, name.n);
    nearest->name[name.n] = '\0';
}

bool setting_suggest(struct str wrong, enum spelling spelling, char out[SETTING_NAME_BYTES])
{
    if (spelling == SPELLING_VARIABLE)
        wrong = str_from_at(wrong, strlen(VARIABLE_PREFIX));
    while (spelling == SPELLING_FLAG && wrong.n > 0 && wrong.p[0] == '-')
        wrong = str_from_at(wrong, 1);

    size_t limit = least(3, 1 + wrong.n / 5);
    struct nearest nearest = {
        .wrong = wrong, .spelling = spelling, .limit = limit, .distance = limit + 1, .name = out};
    for (size_t i = 0; i < SETTINGS; i++) {
        char spelt[SETTING_NAME_BYTES];
        consider(&nearest, setting_spell(&settings[i], spelling, spelt));
        if (spelling == SPELLING_KEY && setting_section(&settings[i]).n > 0)
            consider(&nearest, setting_section(&settings[i]));
    }
    if (spelling != SPELLING_KEY)
        consider(&nearest, spelling == SPELLING_FLAG ? STR("--config") : STR("HOLDFAST_CONFIG"));
    return nearest.distance <= limit;
}
