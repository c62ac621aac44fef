/* Digests, names, tags and references: one text, read as each of them. The second opinion is the C
 * library's, on the grammars as the specifications write them. */
#include "oci/oci.h"

#include <regex.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define COMPONENT "[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*"

enum grammar {
    GRAMMAR_NAME,
    GRAMMAR_TAG,
    GRAMMAR_DIGEST,
    GRAMMAR_OURS, /* the digests that can be verified here */
    N_GRAMMARS
};

static const char *const grammars[N_GRAMMARS] = {
    [GRAMMAR_NAME] = "^" COMPONENT "(/" COMPONENT ")*$",
    [GRAMMAR_TAG] = "^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$",
    [GRAMMAR_DIGEST] = "^[a-z0-9]+([+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+$",
    [GRAMMAR_OURS] = "^(sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$",
};

static bool matches(enum grammar grammar, struct str text)
{
    static regex_t compiled[N_GRAMMARS]; /* kept, as compiling takes a hundred times longer */
    static bool is_compiled[N_GRAMMARS];
    if (!is_compiled[grammar])
        require(regcomp(&compiled[grammar], grammars[grammar], REG_EXTENDED | REG_NOSUB) == 0);
    is_compiled[grammar] = true;

    auto_arena arena = {0};
    return str_find(text, '\0') == text.n &&
           regexec(&compiled[grammar], str_z(&arena, text), 0, NULL, 0) == 0;
}

static void check_failure(const struct err *err, const char *code)
{
    require(err->kind == ERR_INVALID && err->say[0] != '\0');
    require(str_eq(str_from(err->code), str_from(code)));
}

static void check_digest(struct str text)
{
    struct err err;
    struct oci_digest digest;
    char again[OCI_DIGEST_TEXT_MAX + 1];
    bool parsed = oci_digest_parse(text, &digest, &err) == 0;
    require(parsed == matches(GRAMMAR_OURS, text));
    if (parsed)
        require(str_eq(oci_digest_format(&digest, again), text));
    else
        check_failure(&err, OCI_DIGEST_INVALID);

    bool is_registered = str_starts(text, STR("sha256:")) || str_starts(text, STR("sha512:"));
    require(oci_digest_is_wellformed(text) ==
            (is_registered ? parsed : matches(GRAMMAR_DIGEST, text)));
}

static void check_names(struct str text)
{
    struct err err;
    struct oci_name name;
    struct oci_tag tag;
    if (oci_name_parse(text, &name, &err) == 0)
        require(matches(GRAMMAR_NAME, text) && text.n <= OCI_NAME_BYTES_MAX);
    else
        require(!matches(GRAMMAR_NAME, text) || text.n > OCI_NAME_BYTES_MAX);
    require((oci_tag_parse(text, &tag, &err) == 0) == matches(GRAMMAR_TAG, text));
}

static void check_reference(struct str text)
{
    struct err err;
    struct oci_reference reference;
    bool has_colon = str_find(text, ':') < text.n;
    if (oci_reference_parse(text, &reference, &err) != 0)
        check_failure(&err, has_colon ? OCI_DIGEST_INVALID : OCI_TAG_INVALID);
    else
        require(reference.is_digest == has_colon);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 400)
        return 0; /* the C library's opinion takes long on long texts */
    auto_arena arena = {0};
    /* A copy of exactly its size, so that the sanitizer sees any step beyond its end. */
    struct str text = {size > 0 ? memcpy(arena_alloc(&arena, size), data, size) : NULL, size};
    check_digest(text);
    check_names(text);
    check_reference(text);
    return 0;
}
