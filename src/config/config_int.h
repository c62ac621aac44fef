/* Inside of the config room: the table of settings, and one run of config_load. */
#ifndef HOLDFAST_CONFIG_INT_H
#define HOLDFAST_CONFIG_INT_H

#include "config/config.h"

enum setting_id {
#define CONFIG_TEXT(key, field, ...) SETTING_##field,
#define CONFIG_WORD(key, field, ...) SETTING_##field,
#define CONFIG_URL(key, field, ...) SETTING_##field,
#define CONFIG_SECRET(key, field, ...) SETTING_##field,
#define CONFIG_NUMBER(key, field, ...) SETTING_##field,
#define CONFIG_BYTES(key, field, ...) SETTING_##field,
#define CONFIG_TIME(key, field, ...) SETTING_##field,
#define CONFIG_FLAG(key, field, ...) SETTING_##field,
#define CONFIG_CHOICE(key, field, ...) SETTING_##field,
#define CONFIG_LIST(key, field, ...) SETTING_##field,
#include "config/settings.def"
    SETTINGS
};

enum setting_kind {
    SETTING_KIND_TEXT,
    SETTING_KIND_WORD,
    SETTING_KIND_URL,
    SETTING_KIND_SECRET,
    SETTING_KIND_NUMBER,
    SETTING_KIND_BYTES,
    SETTING_KIND_TIME,
    SETTING_KIND_FLAG,
    SETTING_KIND_CHOICE,
    SETTING_KIND_LIST,
};

/* How a setting of several values is kept. */
struct setting_list {
    const char *placeholder;
    size_t count_offset; /* of its size_t in struct config */
    size_t max;
    bool may_be_empty;
    int (*add)(struct config *config, struct str text, struct err *err);
    void (*print)(const struct config *config, size_t i, struct buf *out);
};

extern const struct setting_list config_list_listen;
extern const struct setting_list config_list_trusted;

struct setting {
    const char *key;
    enum setting_kind kind;
    size_t offset;      /* of its field in struct config; not for a list */
    size_t file_offset; /* URL, SECRET: of its file */
    const char *fallback;
    const char *low; /* NUMBER, BYTES, TIME */
    const char *high;
    const char *words;       /* CHOICE */
    const char *placeholder; /* WORD */
    const char *help;
    const struct setting_list *list; /* LIST */
};

extern const struct setting settings[SETTINGS];

/* ---- Names (settings.c) ---- */

enum spelling {
    SPELLING_KEY,      /* limits.connections */
    SPELLING_FLAG,     /* --limits-connections */
    SPELLING_VARIABLE, /* HOLDFAST_LIMITS_CONNECTIONS */
};
#define SETTING_NAME_BYTES 64
#define VARIABLE_PREFIX "HOLDFAST_"

struct str setting_spell(const struct setting *setting, enum spelling spelling,
                         char out[SETTING_NAME_BYTES]);
/* NULL when there is none. */
const struct setting *setting_find(struct str name, enum spelling spelling);
/* The part of a key before its dot; empty when it has none. */
struct str setting_section(const struct setting *setting);
/* The first setting of a section; NULL when there is no such section. */
const struct setting *setting_section_find(struct str section);
/* The known name that was probably meant. False: none is near. */
bool setting_suggest(struct str wrong, enum spelling spelling, char out[SETTING_NAME_BYTES]);

static inline bool setting_is_text(const struct setting *setting)
{
    return setting->kind == SETTING_KIND_TEXT || setting->kind == SETTING_KIND_WORD ||
           setting->kind == SETTING_KIND_URL || setting->kind == SETTING_KIND_SECRET;
}
/* Its value is not shown, and may be in a file. */
static inline bool setting_is_hidden(const struct setting *setting)
{
    return setting->kind == SETTING_KIND_URL || setting->kind == SETTING_KIND_SECRET;
}

/* ---- Values (value.c) ---- */

#define TEXT_BYTES_MAX 4095 /* as PATH_MAX, without the NUL */

/* Reads one value into its field; a list gets one more element. Errors: INVALID, `say` has the
 * value, unless it is hidden, and what was expected. */
int setting_set(struct config *config, const struct setting *setting, struct str text,
                struct err *err) MUST_CHECK;
/* A value as it stands in a YAML file. Not for lists. */
void setting_print(const struct config *config, const struct setting *setting, struct buf *out);
/* What a value may be: "64KiB to 64MiB", "none, pull or push"; nothing for texts and lists. */
void setting_print_bounds(const struct setting *setting, struct buf *out);
/* The help with bounds and default, for people: help, man page, comments. */
void setting_describe(const struct setting *setting, struct buf *out);
/* Name for a value in a synopsis: SIZE, TIME, none|pull|push. static */
const char *setting_placeholder(const struct setting *setting);
/* Elements of a list. */
size_t *setting_count(struct config *config, const struct setting *setting);
/* `text` in quotes, unprintable bytes escaped, long ones cut, passwords of URLs masked. arena */
const char *config_quote(struct arena *arena, struct str text);
/* One line of printable UTF-8. */
bool config_is_printable(struct str text);

/* ---- Secrets (secret.c) ---- */

#define CONFIG_MASK "********"

/* `text` with the passwords of the URL in it, if there is one, masked. */
void config_add_masked(struct buf *out, struct str text);
/* For setting_set and setting_print, of hidden ones. */
int hidden_set(struct config *config, const struct setting *setting, struct str text,
               struct err *err) MUST_CHECK;
void hidden_print(const struct config *config, const struct setting *setting, struct buf *out);

/* ---- Database and object store (stores.c) ---- */

/* Whether a text has the form that its setting wants. Errors: INVALID. */
int config_check_form(struct config *config, const struct setting *setting, struct str text,
                      struct err *err) MUST_CHECK;

/* ---- One run of config_load (load.c) ---- */

enum source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENVIRONMENT, SOURCE_FLAG };

#define COMPLAINTS_MAX 40
#define COMPLAINT_BYTES_MAX 900

struct loading {
    struct config config;
    struct arena scratch;
    struct buf *complaints;
    size_t n_complaints;
    enum source source[SETTINGS]; /* of the value in force */
    struct str where[SETTINGS]; /* scratch: file, line and key, variable or flag; p NULL: default */
};

void loading_complain(struct loading *loading, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* Enough complaints: reading on would only cost time. */
bool loading_is_full(const struct loading *loading);
/* Complains about a name that is none of ours. `prefix` says where: "holdfast.yaml:7: ", or "". */
void loading_complain_unknown(struct loading *loading, const char *prefix, const char *thing,
                              struct str name, enum spelling spelling);
/* Takes a value from a source; sources must come in rising order. `where` lives in scratch. */
void loading_give(struct loading *loading, const struct setting *setting, enum source source,
                  struct str where, struct str text);
/* A list is given, perhaps empty: what lower sources said of it is forgotten. */
void loading_give_list(struct loading *loading, const struct setting *setting, enum source source,
                       struct str where);

/* Reads the files of hidden settings in force (secret.c). */
void config_read_secrets(struct loading *loading);
/* Complains about settings of the stores that do not go together, and sets what follows from them
 * (stores.c). */
void config_check_stores(struct loading *loading);

/* ---- Files (load.c, yaml.c) ---- */

/* 0, or the errno. Beyond its maximum `content` overflows. */
int config_read_file(const char *path, struct buf *content) MUST_CHECK;

#define CONFIG_FILE_BYTES_MAX 1048576

/* Reads the bytes of a file; `name` is what complaints call it. */
void config_read_yaml(struct loading *loading, const char *name, struct str yaml);
/* config_load with a file's bytes as its only source; reads no file, of secrets neither. */
int config_load_yaml(const char *name, struct str yaml, struct config *ret,
                     struct buf *ret_complaints) MUST_CHECK;

#endif
