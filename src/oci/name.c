#include "oci/oci.h"

/* dist-spec, "Pulling manifests", as a machine that takes each byte once:
 * a name is [a-z0-9]+((\.|_|__|-+)[a-z0-9]+)* and more of these after '/'. */
enum name_class {
    CLASS_OTHER,
    CLASS_WORD, /* [a-z0-9] */
    CLASS_DOT,
    CLASS_UNDERSCORE,
    CLASS_DASH,
    CLASS_SLASH,
    N_CLASSES
};

enum name_state {
    STATE_REFUSED, /* where whatever the table leaves out leads */
    STATE_BEGIN,   /* of the name or of a component */
    STATE_WORD,    /* the only one in which a name may end */
    STATE_DOT,
    STATE_UNDERSCORE,
    STATE_UNDERSCORES,
    STATE_DASHES,
    N_STATES
};

static const uint8_t name_classes[256] = {
    ['a' ... 'z'] = CLASS_WORD, ['0' ... '9'] = CLASS_WORD, ['.'] = CLASS_DOT,
    ['_'] = CLASS_UNDERSCORE,   ['-'] = CLASS_DASH,         ['/'] = CLASS_SLASH,
};

static const uint8_t name_steps[N_STATES][N_CLASSES] = {
    [STATE_BEGIN] = {[CLASS_WORD] = STATE_WORD},
    [STATE_WORD] = {[CLASS_WORD] = STATE_WORD,
                    [CLASS_DOT] = STATE_DOT,
                    [CLASS_UNDERSCORE] = STATE_UNDERSCORE,
                    [CLASS_DASH] = STATE_DASHES,
                    [CLASS_SLASH] = STATE_BEGIN},
    [STATE_DOT] = {[CLASS_WORD] = STATE_WORD},
    [STATE_UNDERSCORE] = {[CLASS_WORD] = STATE_WORD, [CLASS_UNDERSCORE] = STATE_UNDERSCORES},
    [STATE_UNDERSCORES] = {[CLASS_WORD] = STATE_WORD},
    [STATE_DASHES] = {[CLASS_WORD] = STATE_WORD, [CLASS_DASH] = STATE_DASHES},
};

int oci_name_parse(struct str text, struct oci_name *ret, struct err *err)
{
    if (text.n > OCI_NAME_BYTES_MAX)
        return err_code(err, ERR_INVALID, OCI_NAME_INVALID,
                        "repository name \"" STR_FMT "...\" has %zu bytes, the limit is %d",
                        STR_ARG(str_first(text, 60)), text.n, OCI_NAME_BYTES_MAX);
    uint8_t state = STATE_BEGIN;
    size_t at = 0;
    for (; at < text.n; at++) {
        state = name_steps[state][name_classes[(unsigned char)text.p[at]]];
        if (state == STATE_REFUSED)
            break;
    }
    if (state != STATE_WORD)
        return err_code(err, ERR_INVALID, OCI_NAME_INVALID,
                        "repository name \"" STR_FMT "\" is malformed at byte %zu: expected "
                        "lower-case letters and digits, joined by one \".\", one or two \"_\" or "
                        "any number of \"-\", and parted by \"/\"",
                        STR_ARG(str_first(text, 120)), at);
    *ret = (struct oci_name){text};
    return 0;
}

static bool is_tag_byte(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
}

/* [a-zA-Z0-9_][a-zA-Z0-9._-]{0,127} */
static bool is_tag(struct str text)
{
    if (text.n == 0 || text.n > OCI_TAG_BYTES_MAX || text.p[0] == '.' || text.p[0] == '-')
        return false;
    for (size_t i = 0; i < text.n; i++)
        if (!is_tag_byte(text.p[i]))
            return false;
    return true;
}

int oci_tag_parse(struct str text, struct oci_tag *ret, struct err *err)
{
    if (!is_tag(text))
        return err_code(err, ERR_INVALID, OCI_TAG_INVALID,
                        "tag \"" STR_FMT "\" is malformed: expected 1 to %d letters, digits, "
                        "\"_\", \".\" or \"-\", and neither \".\" nor \"-\" first",
                        STR_ARG(str_first(text, 140)), OCI_TAG_BYTES_MAX);
    *ret = (struct oci_tag){text};
    return 0;
}

int oci_reference_parse(struct str text, struct oci_reference *ret, struct err *err)
{
    struct oci_reference reference = {.is_digest = str_find(text, ':') < text.n};
    int failed = reference.is_digest ? oci_digest_parse(text, &reference.digest, err)
                                     : oci_tag_parse(text, &reference.tag, err);
    if (failed != 0)
        return -1;
    *ret = reference;
    return 0;
}
