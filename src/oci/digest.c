#include "oci/oci.h"

#include "oci/oci_int.h"

#define PREFIX_BYTES (sizeof("sha256:") - 1)
_Static_assert(sizeof("sha256:") == sizeof("sha512:"), "one length serves both prefixes");

/* The value of a lower-case hexadecimal digit with HEX_DIGIT set; 0 for any other byte. */
#define HEX_DIGIT 0x10u
static const uint8_t hex_digits[256] = {
    ['0'] = 0x10, ['1'] = 0x11, ['2'] = 0x12, ['3'] = 0x13, ['4'] = 0x14, ['5'] = 0x15,
    ['6'] = 0x16, ['7'] = 0x17, ['8'] = 0x18, ['9'] = 0x19, ['a'] = 0x1a, ['b'] = 0x1b,
    ['c'] = 0x1c, ['d'] = 0x1d, ['e'] = 0x1e, ['f'] = 0x1f,
};

static struct str algorithm_prefix(enum hash_algorithm algorithm)
{
    return algorithm == HASH_SHA512 ? STR("sha512:") : STR("sha256:");
}

static bool prefix_find(struct str text, enum hash_algorithm *ret)
{
    if (str_starts(text, algorithm_prefix(HASH_SHA256)))
        *ret = HASH_SHA256;
    else if (str_starts(text, algorithm_prefix(HASH_SHA512)))
        *ret = HASH_SHA512;
    else
        return false;
    return true;
}

/* False when one of the 2 * n characters is not a lower-case hexadecimal digit. */
static bool hex_read(const char *text, size_t n, uint8_t *out)
{
    const unsigned char *p = (const unsigned char *)text;
    unsigned all = HEX_DIGIT;
    for (size_t i = 0; i < n; i++) {
        unsigned high = hex_digits[p[2 * i]];
        unsigned low = hex_digits[p[2 * i + 1]];
        all &= high & low;
        out[i] = (uint8_t)((high & 0x0f) << 4 | (low & 0x0f));
    }
    return all != 0;
}

/* After the prefix: image-spec, "Registered algorithms". */
static bool encoded_read(struct str text, enum hash_algorithm algorithm, uint8_t *out)
{
    size_t n = hash_bytes(algorithm);
    return text.n == PREFIX_BYTES + 2 * n && hex_read(text.p + PREFIX_BYTES, n, out);
}

static bool is_lower_or_digit(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_separator(char c)
{
    return c == '+' || c == '.' || c == '_' || c == '-';
}

static bool is_encoded(char c)
{
    return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z') || c == '=' || c == '_' || c == '-';
}

/* [a-z0-9]+([+._-][a-z0-9]+)* */
static bool is_algorithm(struct str text)
{
    bool in_component = false;
    for (size_t i = 0; i < text.n; i++) {
        if (is_lower_or_digit(text.p[i]))
            in_component = true;
        else if (in_component && is_separator(text.p[i]))
            in_component = false;
        else
            return false;
    }
    return in_component;
}

/* image-spec, "Digests": algorithm ":" encoded. */
static bool follows_grammar(struct str text)
{
    size_t colon = str_find(text, ':');
    struct str encoded = str_from_at(text, colon + 1);
    if (!is_algorithm(str_first(text, colon)) || encoded.n == 0)
        return false;
    for (size_t i = 0; i < encoded.n; i++)
        if (!is_encoded(encoded.p[i]))
            return false;
    return true;
}

int oci_digest_parse(struct str text, struct oci_digest *ret, struct err *err)
{
    struct oci_digest digest = {0};
    if (!prefix_find(text, &digest.algorithm)) {
        if (follows_grammar(text))
            return err_code(err, ERR_INVALID, OCI_DIGEST_INVALID,
                            "digest \"" STR_FMT "\" has an algorithm that cannot be verified here: "
                            "use sha256 or sha512",
                            STR_ARG(str_first(text, 150)));
        return err_code(err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "digest \"" STR_FMT "\" is malformed: expected \"sha256:\" or \"sha512:\" "
                        "and lower-case hexadecimal digits",
                        STR_ARG(str_first(text, 150)));
    }
    if (!encoded_read(text, digest.algorithm, digest.bytes))
        return err_code(err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "digest \"" STR_FMT "\" is malformed: expected exactly %zu lower-case "
                        "hexadecimal digits after the colon",
                        STR_ARG(str_first(text, 150)), 2 * hash_bytes(digest.algorithm));
    *ret = digest;
    return 0;
}

int oci_algorithm_parse(struct str text, enum hash_algorithm *ret, struct err *err)
{
    if (str_eq(text, STR("sha256")))
        *ret = HASH_SHA256;
    else if (str_eq(text, STR("sha512")))
        *ret = HASH_SHA512;
    else
        return err_code(err, ERR_INVALID, OCI_DIGEST_INVALID,
                        "digest algorithm \"" STR_FMT "\" cannot be computed here: use sha256 or "
                        "sha512",
                        STR_ARG(str_first(text, 100)));
    return 0;
}

bool oci_digest_is_ours(struct str text)
{
    enum hash_algorithm algorithm;
    return prefix_find(text, &algorithm);
}

bool oci_digest_is_wellformed(struct str text)
{
    enum hash_algorithm algorithm;
    uint8_t bytes[HASH_BYTES_MAX];
    if (prefix_find(text, &algorithm))
        return encoded_read(text, algorithm, bytes);
    return follows_grammar(text);
}

bool oci_digest_eq(const struct oci_digest *a, const struct oci_digest *b)
{
    return a->algorithm == b->algorithm &&
           memcmp(a->bytes, b->bytes, hash_bytes(a->algorithm)) == 0;
}

struct str oci_digest_format(const struct oci_digest *digest, char text[OCI_DIGEST_TEXT_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";
    size_t n = hash_bytes(digest->algorithm);
    memcpy(text, algorithm_prefix(digest->algorithm).p, PREFIX_BYTES);
    char *p = text + PREFIX_BYTES;
    for (size_t i = 0; i < n; i++) {
        *p++ = digits[digest->bytes[i] >> 4];
        *p++ = digits[digest->bytes[i] & 0x0f];
    }
    *p = '\0';
    return (struct str){text, PREFIX_BYTES + 2 * n};
}

struct str oci_digest_text(struct arena *arena, const struct oci_digest *digest)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    return str_dup(arena, oci_digest_format(digest, text));
}

struct oci_digest oci_digest_from_hash(struct hash *hash)
{
    struct oci_digest digest = {.algorithm = hash->algorithm};
    hash_final(hash, digest.bytes);
    return digest;
}

struct oci_digest oci_digest_of(enum hash_algorithm algorithm, struct str bytes)
{
    struct hash hash;
    hash_init(&hash, algorithm);
    hash_update(&hash, bytes.p, bytes.n);
    return oci_digest_from_hash(&hash);
}
