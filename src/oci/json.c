#include "oci/oci_int.h"

static int bad_document(struct err *err, const char *problem)
{
    return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID, "manifest %s", problem);
}

/* Counts what jansson would have to allocate for, before it does: two bytes of "[[],[],…" cost it
 * more than a hundred. Up to the first syntax error, where jansson stops, this sees the same
 * strings as jansson; whether the text is JSON is not asked here. */
static int check_bounds(struct str text, struct err *err)
{
    size_t depth = 0;
    size_t values = 1;
    bool in_string = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
            continue;
        }
        if (c == '"') {
            in_string = true;
        } else if (c == ',') {
            values++;
        } else if (c == '[' || c == '{') {
            values++;
            if (++depth > OCI_MANIFEST_DEPTH_MAX)
                return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                                "manifest is nested deeper than %d levels", OCI_MANIFEST_DEPTH_MAX);
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
        if (values > OCI_MANIFEST_VALUES_MAX)
            return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                            "manifest has more than %d values", OCI_MANIFEST_VALUES_MAX);
    }
    return 0;
}

int oci_json_read(struct str text, json_t **ret, struct err *err)
{
    if (text.n == 0)
        return bad_document(err, "is empty");
    if (check_bounds(text, err) != 0)
        return -1;
    json_error_t reason;
    json_auto_t *json = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &reason);
    if (json == NULL && json_error_code(&reason) == json_error_out_of_memory)
        return err_set(err, ERR_BUSY, "not enough memory to read the manifest");
    if (json == NULL)
        return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                        "manifest is not valid JSON: line %d, column %d: %s", reason.line,
                        reason.column, reason.text);
    if (!json_is_object(json))
        return bad_document(err, "is not a JSON object");
    *ret = TAKE(json);
    return 0;
}

const json_t *oci_json_field(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    return json_is_null(value) ? NULL : value;
}

int oci_json_string(const json_t *object, struct oci_place place, const char *name, struct str *ret,
                    struct err *err)
{
    const json_t *value = oci_json_field(object, name);
    if (value != NULL && !json_is_string(value))
        return oci_json_bad(err, OCI_MANIFEST_INVALID, place, name, "must be a string");
    *ret = (struct str){json_string_value(value), json_string_length(value)};
    return 0;
}

int oci_json_bad(struct err *err, const char *code, struct oci_place place, const char *name,
                 const char *problem)
{
    char index[24] = "";
    if (place.index != OCI_PLACE_NO_INDEX)
        (void)snprintf(index, sizeof(index), "[%zu]", place.index);
    return err_code(err, ERR_INVALID, code, "manifest field \"%s%s%s%s\" %s",
                    place.list != NULL ? place.list : "", index,
                    place.list != NULL && name != NULL ? "." : "", name != NULL ? name : "",
                    problem);
}
