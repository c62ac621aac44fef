#include "oci/oci_int.h"

#define TYPE(literal)                \
    {                                \
        literal, sizeof(literal) - 1 \
    }

static const struct oci_manifest_type manifest_types[] = {
    {TYPE(OCI_MEDIA_TYPE_MANIFEST), .is_index = false},
    {TYPE(OCI_MEDIA_TYPE_INDEX), .is_index = true},
    {TYPE(OCI_MEDIA_TYPE_DOCKER_MANIFEST), .is_index = false},
    {TYPE(OCI_MEDIA_TYPE_DOCKER_LIST), .is_index = true},
};

/* Media types are compared without regard to case: RFC 6838, section 4.2. */
const struct oci_manifest_type *oci_manifest_type_find(struct str text)
{
    for (size_t i = 0; i < ARRAY_SIZE(manifest_types); i++)
        if (str_eq_nocase(text, manifest_types[i].text))
            return &manifest_types[i];
    return NULL;
}

bool oci_media_type_is_schema1(struct str text)
{
    return str_eq_nocase(text, STR("application/vnd.docker.distribution.manifest.v1+json")) ||
           str_eq_nocase(text, STR("application/vnd.docker.distribution.manifest.v1+prettyjws"));
}

bool oci_media_type_is_manifest(struct str text)
{
    return oci_manifest_type_find(text) != NULL || oci_media_type_is_schema1(text);
}

bool oci_media_type_is_index(struct str text)
{
    const struct oci_manifest_type *type = oci_manifest_type_find(text);
    return type != NULL && type->is_index;
}

/* The rest after the prefix is the compression: "", "+gzip", "+zstd", ".gzip". */
bool oci_layer_is_foreign(struct str media_type)
{
    return str_starts(media_type, STR("application/vnd.oci.image.layer.nondistributable.v1.tar")) ||
           str_starts(media_type, STR("application/vnd.docker.image.rootfs.foreign.diff.tar"));
}
