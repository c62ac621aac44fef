/* Manifests. The first line of the input is the Content-Type, the rest is the body. */
#include "oci/oci.h"

#include <jansson.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_failure(const struct err *err)
{
    require(err->kind == ERR_INVALID && err->say[0] != '\0');
    require(str_eq(str_from(err->code), STR(OCI_MANIFEST_INVALID)) ||
            str_eq(str_from(err->code), STR(OCI_DIGEST_INVALID)));
}

static void check_descriptors(const struct oci_descriptor *descriptors, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char text[OCI_DIGEST_TEXT_MAX + 1];
        require(descriptors[i].size <= INT64_MAX);
        require(descriptors[i].media_type.n <= OCI_MEDIA_TYPE_BYTES_MAX);
        require(oci_digest_is_wellformed(oci_digest_format(&descriptors[i].digest, text)));
    }
}

/* What a list of referrers says of the manifest must be JSON. */
static void check_referrer(const struct oci_manifest *manifest, struct str body)
{
    char digest[OCI_DIGEST_TEXT_MAX + 1];
    struct oci_digest of_body = oci_digest_of(HASH_SHA256, body);
    auto_buf buf = BUF_INIT(6 * body.n + 4096);
    oci_referrer_format(&buf, &(struct oci_referrer){
                                  .media_type = manifest->media_type,
                                  .digest = oci_digest_format(&of_body, digest),
                                  .size = body.n,
                                  .artifact_type = manifest->artifact_type,
                                  .annotations = manifest->annotations,
                              });
    require(!buf.overflow);
    json_auto_t *json = json_loadb(buf.p, buf.n, JSON_REJECT_DUPLICATES, NULL);
    require(json != NULL);
    require(manifest->annotations.n == 0 ||
            json_object_size(json_object_get(json, "annotations")) > 0);
}

/* The type that was found must be found again in an answer that carries it. */
static void check_again(const struct oci_manifest *manifest, struct str body)
{
    struct err err;
    auto_arena arena = {0};
    struct oci_manifest again;
    require(oci_manifest_parse(&arena, manifest->media_type, body, &again, &err) == 0);
    require(str_eq(again.media_type, manifest->media_type));
    require(again.n_references == manifest->n_references);
    require(again.n_foreign == manifest->n_foreign);
    require(str_eq(again.annotations, manifest->annotations));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err;
    auto_arena arena = {0};
    struct str input = {(const char *)data, size};
    struct str content_type = str_cut(&input, '\n');
    /* A copy of exactly its size, so that the sanitizer sees any step beyond its end. */
    struct str body = {input.n > 0 ? memcpy(arena_alloc(&arena, input.n), input.p, input.n) : NULL,
                       input.n};
    struct oci_manifest manifest;
    if (oci_manifest_parse(&arena, content_type, body, &manifest, &err) != 0) {
        check_failure(&err);
        return 0;
    }
    require(manifest.n_references + manifest.n_foreign <= OCI_MANIFEST_REFERENCES_MAX);
    check_descriptors(manifest.references, manifest.n_references);
    check_descriptors(manifest.foreign, manifest.n_foreign);
    check_referrer(&manifest, body);
    check_again(&manifest, body);
    return 0;
}
