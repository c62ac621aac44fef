/* The YAML file, read as a stream of libyaml's events: a mapping of keys and sections, and nothing
 * that YAML offers beyond that (no anchors, aliases, tags, second documents). Lines are known for
 * each complaint, and nothing is built in memory but the values themselves. */
#include "config/config_int.h"

#include <yaml.h>

#define DEPTH_MAX 16

struct reader {
    struct loading *loading;
    const char *name;
    yaml_parser_t parser;
    unsigned depth;
    size_t lines[SETTINGS];         /* where a key was given; 0: not yet */
    size_t section_lines[SETTINGS]; /* same, for the section that begins with this setting */
};

static void event_done(yaml_event_t *event)
{
    yaml_event_delete(event);
}
#define auto_event __attribute__((cleanup(event_done))) yaml_event_t

static size_t line_of(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

static struct str scalar_of(const yaml_event_t *event)
{
    return (struct str){(const char *)event->data.scalar.value, event->data.scalar.length};
}

/* A value that is not there: "key:" and nothing behind it. */
static bool is_nothing(const yaml_event_t *event)
{
    return event->type == YAML_SCALAR_EVENT && event->data.scalar.length == 0 &&
           event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static void complain_syntax(struct reader *reader)
{
    const yaml_parser_t *parser = &reader->parser;
    const char *problem = parser->problem != NULL ? parser->problem : "out of memory";
    if (parser->error == YAML_READER_ERROR)
        loading_complain(reader->loading, "%s: not valid YAML: %s at byte %zu", reader->name,
                         problem, parser->problem_offset);
    else
        loading_complain(reader->loading, "%s:%zu: not valid YAML: %s%s%s", reader->name,
                         parser->problem_mark.line + 1, problem, parser->context != NULL ? " " : "",
                         parser->context != NULL ? parser->context : "");
}

/* What is refused wherever it stands; NULL when there is nothing of it. static */
static const char *refused(const yaml_event_t *event)
{
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return "aliases (*name) are not allowed";
    case YAML_SCALAR_EVENT:
        return event->data.scalar.anchor != NULL ? "anchors (&name) are not allowed"
               : event->data.scalar.tag != NULL  ? "tags (!name) are not allowed"
                                                 : NULL;
    case YAML_SEQUENCE_START_EVENT:
        return event->data.sequence_start.anchor != NULL ? "anchors (&name) are not allowed"
               : event->data.sequence_start.tag != NULL  ? "tags (!name) are not allowed"
                                                         : NULL;
    case YAML_MAPPING_START_EVENT:
        return event->data.mapping_start.anchor != NULL ? "anchors (&name) are not allowed"
               : event->data.mapping_start.tag != NULL  ? "tags (!name) are not allowed"
                                                        : NULL;
    case YAML_NO_EVENT:
    case YAML_STREAM_START_EVENT:
    case YAML_STREAM_END_EVENT:
    case YAML_DOCUMENT_START_EVENT:
    case YAML_DOCUMENT_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        return NULL;
    }
    return NULL;
}

/* The next event. False: reading ends here, and the reason was complained about. */
static bool next(struct reader *reader, yaml_event_t *ret)
{
    if (loading_is_full(reader->loading))
        return false;
    if (yaml_parser_parse(&reader->parser, ret) == 0) {
        memset(ret, 0, sizeof(*ret));
        complain_syntax(reader);
        return false;
    }
    const char *problem = refused(ret);
    if (ret->type == YAML_SEQUENCE_START_EVENT || ret->type == YAML_MAPPING_START_EVENT) {
        if (++reader->depth > DEPTH_MAX)
            problem = "nested too deeply";
    } else if (ret->type == YAML_SEQUENCE_END_EVENT || ret->type == YAML_MAPPING_END_EVENT) {
        reader->depth--;
    }
    if (problem != NULL)
        loading_complain(reader->loading, "%s:%zu: %s", reader->name, line_of(ret), problem);
    return problem == NULL;
}

/* Passes over the rest of the value that begins with `event`. */
static bool skip(struct reader *reader, const yaml_event_t *event)
{
    if (event->type == YAML_SCALAR_EVENT)
        return true;
    unsigned outside = reader->depth - 1;
    while (reader->depth > outside) {
        auto_event inner = {.type = YAML_NO_EVENT};
        if (!next(reader, &inner))
            return false;
    }
    return true;
}

static struct str where(struct reader *reader, size_t line, const struct setting *setting)
{
    return str_printf(&reader->loading->scratch, "%s:%zu: %s", reader->name, line, setting->key);
}

static bool read_list(struct reader *reader, const struct setting *setting, size_t line)
{
    struct loading *loading = reader->loading;
    loading_give_list(loading, setting, SOURCE_FILE, where(reader, line, setting));
    for (;;) {
        auto_event item = {.type = YAML_NO_EVENT};
        if (!next(reader, &item))
            return false;
        if (item.type == YAML_SEQUENCE_END_EVENT)
            return true;
        if (item.type == YAML_SCALAR_EVENT) {
            loading_give(loading, setting, SOURCE_FILE, where(reader, line_of(&item), setting),
                         scalar_of(&item));
        } else {
            loading_complain(loading, "%s:%zu: %s: an element of the list must be one value",
                             reader->name, line_of(&item), setting->key);
            if (!skip(reader, &item))
                return false;
        }
    }
}

static void complain_nothing(struct reader *reader, const struct setting *setting, size_t line)
{
    bool list = setting->kind == SETTING_KIND_LIST;
    bool text = setting_is_text(setting);
    const char *remedy = list && setting->list->may_be_empty    ? ", or write []"
                         : text && setting->fallback[0] == '\0' ? ", or write \"\""
                                                                : " for its default";
    loading_complain(reader->loading, "%s:%zu: %s: has no value; leave the line out%s",
                     reader->name, line, setting->key, remedy);
}

static bool read_value(struct reader *reader, const struct setting *setting,
                       const yaml_event_t *value)
{
    bool list = setting->kind == SETTING_KIND_LIST;
    size_t line = line_of(value);
    if (value->type == YAML_SEQUENCE_START_EVENT && list)
        return read_list(reader, setting, line);
    if (is_nothing(value))
        complain_nothing(reader, setting, line);
    else if (value->type == YAML_SCALAR_EVENT)
        loading_give(reader->loading, setting, SOURCE_FILE, where(reader, line, setting),
                     scalar_of(value));
    else
        loading_complain(reader->loading, "%s:%zu: %s: must be %s, and is a %s", reader->name, line,
                         setting->key, list ? "a list" : "one value",
                         value->type == YAML_MAPPING_START_EVENT ? "mapping" : "list");
    return skip(reader, value);
}

/* Counts a key or a section in. False: it was given before. */
static bool is_first(struct reader *reader, size_t *seen_line, size_t line, struct str path)
{
    if (*seen_line != 0) {
        loading_complain(reader->loading, "%s:%zu: \"" STR_FMT "\" was given at line %zu already",
                         reader->name, line, STR_ARG(path), *seen_line);
        return false;
    }
    *seen_line = line;
    return true;
}

static bool read_mapping(struct reader *reader, struct str section);

/* `first`: the first setting of the section. */
static bool read_section(struct reader *reader, const struct setting *first, struct str section,
                         size_t line, const yaml_event_t *value)
{
    if (!is_first(reader, &reader->section_lines[first - settings], line, section))
        return skip(reader, value);
    if (value->type == YAML_MAPPING_START_EVENT)
        return read_mapping(reader, section);
    if (!is_nothing(value)) /* all of its keys may be commented out */
        loading_complain(
            reader->loading,
            "%s:%zu: \"" STR_FMT "\" is a section: its keys, as \"%s\", stand below it",
            reader->name, line_of(value), STR_ARG(section), first->key + section.n + 1);
    return skip(reader, value);
}

/* One key and its value. */
static bool read_pair(struct reader *reader, struct str section, const yaml_event_t *key_event)
{
    struct loading *loading = reader->loading;
    size_t line = line_of(key_event);
    struct str key = scalar_of(key_event);
    struct str path = section.n > 0 ? str_printf(&loading->scratch, STR_FMT "." STR_FMT,
                                                 STR_ARG(section), STR_ARG(key))
                                    : key;
    auto_event value = {.type = YAML_NO_EVENT};
    if (!next(reader, &value))
        return false;

    const struct setting *setting = setting_find(path, SPELLING_KEY);
    const struct setting *first = section.n == 0 ? setting_section_find(key) : NULL;
    if (first != NULL)
        return read_section(reader, first, key, line, &value);
    if (setting != NULL && section.n == 0 && str_find(path, '.') < path.n) {
        loading_complain(loading,
                         "%s:%zu: write \"%s\" as a section \"" STR_FMT ":\" with the key below it",
                         reader->name, line, setting->key, STR_ARG(setting_section(setting)));
    } else if (setting == NULL) {
        const char *prefix = str_printf(&loading->scratch, "%s:%zu: ", reader->name, line).p;
        loading_complain_unknown(loading, prefix, "key", path, SPELLING_KEY);
    } else if (is_first(reader, &reader->lines[setting - settings], line, path)) {
        return read_value(reader, setting, &value);
    }
    return skip(reader, &value);
}

static bool read_mapping(struct reader *reader, struct str section)
{
    for (;;) {
        auto_event key = {.type = YAML_NO_EVENT};
        if (!next(reader, &key))
            return false;
        if (key.type == YAML_MAPPING_END_EVENT)
            return true;
        if (key.type != YAML_SCALAR_EVENT) {
            loading_complain(reader->loading, "%s:%zu: a key must be a word", reader->name,
                             line_of(&key));
            return false;
        }
        if (!read_pair(reader, section, &key))
            return false;
    }
}

static bool read_document(struct reader *reader)
{
    auto_event root = {.type = YAML_NO_EVENT};
    if (!next(reader, &root))
        return false;
    if (root.type == YAML_MAPPING_START_EVENT)
        return read_mapping(reader, STR(""));
    if (is_nothing(&root))
        return true;
    loading_complain(reader->loading, "%s:%zu: must be a mapping, as \"data: /var/lib/holdfast\"",
                     reader->name, line_of(&root));
    return skip(reader, &root);
}

static void read_stream(struct reader *reader)
{
    size_t documents = 0;
    for (;;) {
        auto_event event = {.type = YAML_NO_EVENT};
        if (!next(reader, &event) || event.type == YAML_STREAM_END_EVENT)
            return;
        if (event.type != YAML_DOCUMENT_START_EVENT)
            continue;
        if (documents++ > 0) {
            loading_complain(reader->loading, "%s:%zu: a second document in the file", reader->name,
                             line_of(&event));
            return;
        }
        if (!read_document(reader))
            return;
    }
}

void config_read_yaml(struct loading *loading, const char *name, struct str yaml)
{
    struct reader reader = {.loading = loading, .name = name};
    if (yaml_parser_initialize(&reader.parser) == 0) {
        loading_complain(loading, "%s: out of memory", name);
        return;
    }
    yaml_parser_set_input_string(&reader.parser, (const unsigned char *)(yaml.n > 0 ? yaml.p : ""),
                                 yaml.n);
    read_stream(&reader);
    yaml_parser_delete(&reader.parser);
}
