#include "importer/source_int.h"

/* Text costs jansson up to a hundred times its bytes in values, so these are counted before. Commas
 * and brackets inside of strings count, too: real lists are far below the limit. */
static bool has_too_many_values(struct str text)
{
    size_t values = 1;
    for (size_t i = 0; i < text.n; i++)
        values += text.p[i] == ',' || text.p[i] == '[' || text.p[i] == '{';
    return values > SOURCE_JSON_VALUES_MAX;
}

int source_json_read(struct str text, const char *what, json_t **ret, struct err *err)
{
    if (has_too_many_values(text))
        return err_set(err, ERR_INVALID, "%s has more than %d values", what,
                       SOURCE_JSON_VALUES_MAX);
    json_error_t reason;
    json_auto_t *json = json_loadb(text.p != NULL ? text.p : "", text.n, 0, &reason);
    if (json == NULL)
        return err_set(err, ERR_INVALID, "%s is not valid JSON: line %d, column %d", what,
                       reason.line, reason.column);
    if (!json_is_object(json))
        return err_set(err, ERR_INVALID, "%s is not a JSON object", what);
    *ret = TAKE(json);
    return 0;
}

struct str source_json_text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value))
        return (struct str){0};
    return (struct str){json_string_value(value), json_string_length(value)};
}
