/* A link of distribution's storage, and a layout's ref.name: what comes out is a digest and a tag.
 */
#include "importer/source_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct str text = {copy, size};
    struct oci_digest digest;
    struct err err;
    if (source_link_parse(text, &digest, &err) == 0) {
        char again[OCI_DIGEST_TEXT_MAX + 1];
        struct str formatted = oci_digest_format(&digest, again);
        require(str_starts(text, formatted) && size - formatted.n <= 1);
    } else {
        require(err.kind == ERR_CORRUPT);
    }
    struct str tag_text = source_layout_tag(text);
    struct oci_tag tag;
    if (tag_text.p != NULL)
        require(str_ends(text, tag_text) && oci_tag_parse(tag_text, &tag, &err) == 0);
    return 0;
}
