#include "oci/oci_int.h"

static int bad(struct err *err, struct oci_place place, const char *name, const char *problem)
{
    return oci_json_bad(err, OCI_MANIFEST_INVALID, place, name, problem);
}

static int media_type_read(const json_t *json, struct oci_place place, struct str *ret,
                           struct err *err)
{
    struct str text;
    if (oci_json_field(json, "mediaType") == NULL)
        return bad(err, place, "mediaType", "is missing");
    if (oci_json_string(json, place, "mediaType", &text, err) != 0)
        return -1;
    if (text.n > OCI_MEDIA_TYPE_BYTES_MAX)
        return bad(err, place, "mediaType", "is longer than a media type can be, 255 bytes");
    *ret = text;
    return 0;
}

static int size_read(const json_t *json, struct oci_place place, uint64_t *ret, struct err *err)
{
    const json_t *value = oci_json_field(json, "size");
    if (value == NULL)
        return bad(err, place, "size", "is missing");
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return bad(err, place, "size", "must be a whole number of bytes, 0 or more");
    *ret = (uint64_t)json_integer_value(value);
    return 0;
}

/* Digests of algorithms that are not ours pass, as image-spec, "Digests", wants it. */
static int digest_read(const json_t *json, struct oci_place place, struct oci_descriptor_read *read,
                       struct err *err)
{
    struct str text;
    if (oci_json_field(json, "digest") == NULL)
        return bad(err, place, "digest", "is missing");
    if (oci_json_string(json, place, "digest", &text, err) != 0)
        return -1;
    if (!oci_digest_is_wellformed(text))
        return oci_json_bad(err, OCI_DIGEST_INVALID, place, "digest",
                            "is malformed: expected \"sha256:\" and 64, or \"sha512:\" and 128 "
                            "lower-case hexadecimal digits");
    read->is_ours = oci_digest_is_ours(text);
    return read->is_ours ? oci_digest_parse(text, &read->descriptor.digest, err) : 0;
}

static int urls_read(const json_t *json, struct oci_place place, bool *ret_has_urls,
                     struct err *err)
{
    const json_t *urls = oci_json_field(json, "urls");
    if (urls != NULL && !json_is_array(urls))
        return bad(err, place, "urls", "must be an array of strings");
    for (size_t i = 0; i < json_array_size(urls); i++)
        if (!json_is_string(json_array_get(urls, i)))
            return bad(err, place, "urls", "must be an array of strings");
    *ret_has_urls = json_array_size(urls) > 0;
    return 0;
}

static bool is_base64(char c)
{
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

/* The number of bytes that `text` stands for. RFC 4648, section 4: padded, no line breaks. */
static bool base64_decoded_bytes(struct str text, uint64_t *ret)
{
    size_t padding = 0;
    while (padding < 2 && padding < text.n && text.p[text.n - 1 - padding] == '=')
        padding++;
    if (text.n % 4 != 0)
        return false;
    for (size_t i = 0; i < text.n - padding; i++)
        if (!is_base64(text.p[i]))
            return false;
    *ret = text.n / 4 * 3 - padding;
    return true;
}

/* image-spec, "Embedded Content": a copy of what the descriptor stands for. */
static int data_check(const json_t *json, struct oci_place place, uint64_t size, struct err *err)
{
    struct str text;
    uint64_t decoded;
    if (oci_json_field(json, "data") == NULL)
        return 0;
    if (oci_json_string(json, place, "data", &text, err) != 0)
        return -1;
    if (!base64_decoded_bytes(text, &decoded))
        return bad(err, place, "data", "must be base64 with padding");
    if (decoded != size)
        return bad(err, place, "data", "does not hold as many bytes as \"size\" says");
    return 0;
}

int oci_descriptor_read(const json_t *json, struct oci_place place, struct oci_descriptor_read *ret,
                        struct err *err)
{
    struct oci_descriptor_read read = {0};
    if (!json_is_object(json))
        return bad(err, place, NULL, "must be an object: a descriptor");
    if (media_type_read(json, place, &read.descriptor.media_type, err) != 0 ||
        digest_read(json, place, &read, err) != 0 ||
        size_read(json, place, &read.descriptor.size, err) != 0 ||
        urls_read(json, place, &read.has_urls, err) != 0 ||
        data_check(json, place, read.descriptor.size, err) != 0)
        return -1;
    *ret = read;
    return 0;
}
