/* What the files of oci share among themselves. json_t stays inside this room. */
#ifndef HOLDFAST_OCI_INT_H
#define HOLDFAST_OCI_INT_H

#include "oci/oci.h"

#include <jansson.h>

/* ---- media_type.c ---- */

struct oci_manifest_type {
    struct str text; /* static */
    bool is_index;
};
/* static; NULL when manifests of this type are not stored here. */
const struct oci_manifest_type *oci_manifest_type_find(struct str text);
/* Docker's manifests before 2016, signed or not. */
bool oci_media_type_is_schema1(struct str text);

/* ---- digest.c ---- */

/* Whether the text before ':' names an algorithm that can be verified here. */
bool oci_digest_is_ours(struct str text);

/* ---- json.c ---- */

/* Where in the document a field stands, for error texts. */
struct oci_place {
    const char *list; /* static: "config" or "layers"; NULL: the document itself */
    size_t index;     /* in `list`; OCI_PLACE_NO_INDEX when it is not an array */
};
#define OCI_PLACE_NO_INDEX SIZE_MAX
#define OCI_PLACE_DOCUMENT ((struct oci_place){NULL, OCI_PLACE_NO_INDEX})

/* Parses an object within bounds of depth and number of values.
 * ret: owned. Errors: INVALID with code MANIFEST_INVALID; BUSY when memory is gone. */
int oci_json_read(struct str text, json_t **ret, struct err *err) MUST_CHECK;
/* The value of a field, borrowed from `object`; NULL when it is absent or null: Go writes null for
 * whatever was never filled. */
const json_t *oci_json_field(const json_t *object, const char *name);
/* ret: borrowed from `object`, empty when the field is absent. */
int oci_json_string(const json_t *object, struct oci_place place, const char *name, struct str *ret,
                    struct err *err) MUST_CHECK;
/* Reports INVALID for a field, or for `place` itself when `name` is NULL. Returns -1. */
int oci_json_bad(struct err *err, const char *code, struct oci_place place, const char *name,
                 const char *problem);

/* ---- descriptor.c ---- */

struct oci_descriptor_read {
    struct oci_descriptor descriptor; /* media_type is borrowed from the JSON */
    bool is_ours;                     /* otherwise descriptor.digest is not set */
    bool has_urls;
};
/* Errors: INVALID with code MANIFEST_INVALID or DIGEST_INVALID. image-spec, "Properties" of
 * descriptors. */
int oci_descriptor_read(const json_t *json, struct oci_place place, struct oci_descriptor_read *ret,
                        struct err *err) MUST_CHECK;

#endif
