#include "oci/oci_int.h"

static int bad(struct err *err, const char *name, const char *problem)
{
    return oci_json_bad(err, OCI_MANIFEST_INVALID, OCI_PLACE_DOCUMENT, name, problem);
}

/* ---- What the document says it is ---- */

static int type_unknown(struct err *err, struct str given)
{
    return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                    "manifest media type \"" STR_FMT "\" is unknown; known are %s, %s, %s, %s",
                    STR_ARG(str_first(given, 50)), OCI_MEDIA_TYPE_MANIFEST, OCI_MEDIA_TYPE_INDEX,
                    OCI_MEDIA_TYPE_DOCKER_MANIFEST, OCI_MEDIA_TYPE_DOCKER_LIST);
}

static int type_set(struct oci_manifest *manifest, struct str given, struct err *err)
{
    const struct oci_manifest_type *type = oci_manifest_type_find(given);
    if (type == NULL)
        return type_unknown(err, given);
    manifest->media_type = type->text;
    manifest->is_index = type->is_index;
    return 0;
}

static int type_from_shape(const json_t *json, struct oci_manifest *manifest, struct err *err)
{
    if (oci_json_field(json, "manifests") != NULL)
        return type_set(manifest, STR(OCI_MEDIA_TYPE_INDEX), err);
    if (oci_json_field(json, "config") != NULL && json_object_get(json, "layers") != NULL)
        return type_set(manifest, STR(OCI_MEDIA_TYPE_MANIFEST), err);
    return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                    "manifest does not say what it is: expected a \"mediaType\", a "
                    "Content-Type, \"manifests\", or \"config\" and \"layers\"");
}

/* dist-spec, "Pushing Manifests": a header, when there is one, repeats the body's mediaType. */
static int type_read(const json_t *json, struct str content_type, struct oci_manifest *manifest,
                     struct err *err)
{
    struct str body_type;
    if (oci_json_string(json, OCI_PLACE_DOCUMENT, "mediaType", &body_type, err) != 0)
        return -1;
    const json_t *version = oci_json_field(json, "schemaVersion");
    if (json_integer_value(version) == 1 || oci_media_type_is_schema1(body_type) ||
        oci_media_type_is_schema1(content_type))
        return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                        "manifest is of Docker's schema 1, which was withdrawn: push the image "
                        "with a client from this decade, which writes schema 2 or OCI manifests");
    if (!json_is_integer(version) || json_integer_value(version) != 2)
        return bad(err, "schemaVersion", "must be the number 2");

    struct str given = body_type.n > 0 ? body_type : content_type;
    if (given.n == 0)
        return type_from_shape(json, manifest, err);
    if (type_set(manifest, given, err) != 0)
        return -1;
    if (content_type.n > 0 && !str_eq_nocase(content_type, given))
        return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                        "manifest has the mediaType \"" STR_FMT "\" but was sent with the "
                        "Content-Type \"" STR_FMT "\": send the same in both",
                        STR_ARG(given), STR_ARG(str_first(content_type, 80)));
    return 0;
}

/* A document that is both would be an image to some clients and an index to others
 * (CVE-2021-41190). */
static int check_one_shape(const json_t *json, bool is_index, struct err *err)
{
    if (!is_index && oci_json_field(json, "manifests") != NULL)
        return bad(err, "manifests", "must not be in an image manifest");
    if (is_index && oci_json_field(json, "layers") != NULL)
        return bad(err, "layers", "must not be in an index");
    if (is_index && oci_json_field(json, "config") != NULL)
        return bad(err, "config", "must not be in an index");
    return 0;
}

/* ---- What it refers to ---- */

struct reading {
    struct arena *arena;
    struct oci_descriptor *references;
    struct oci_descriptor *foreign;
    struct oci_manifest *manifest;
};

/* image-spec, "Non-Distributable Layers"; an entry of an index may be a layer, too. */
static bool may_be_absent(const struct oci_descriptor_read *read, enum oci_reference_kind kind)
{
    return kind != OCI_REFERENCE_CONFIG && (oci_layer_is_foreign(read->descriptor.media_type) ||
                                            (kind == OCI_REFERENCE_LAYER && read->has_urls));
}

static int reference_read(struct reading *reading, const json_t *json, struct oci_place place,
                          enum oci_reference_kind kind, struct err *err)
{
    struct oci_descriptor_read read;
    if (oci_descriptor_read(json, place, &read, err) != 0)
        return -1;
    if (!read.is_ours)
        return 0;
    read.descriptor.kind = kind;
    read.descriptor.media_type = str_dup(reading->arena, read.descriptor.media_type);
    if (may_be_absent(&read, kind))
        reading->foreign[reading->manifest->n_foreign++] = read.descriptor;
    else
        reading->references[reading->manifest->n_references++] = read.descriptor;
    return 0;
}

/* null counts as an empty list: Go writes it for a list that nothing was added to. */
static int references_read(struct reading *reading, const json_t *json, struct err *err)
{
    bool is_index = reading->manifest->is_index;
    const char *name = is_index ? "manifests" : "layers";
    const json_t *list = json_object_get(json, name);
    const json_t *config = oci_json_field(json, "config");
    if (list == NULL)
        return bad(err, name, "is missing");
    if (!json_is_array(list) && !json_is_null(list))
        return bad(err, name, "must be an array of descriptors");
    if (!is_index && config == NULL)
        return bad(err, "config", "is missing");

    size_t n = json_array_size(list) + (is_index ? 0 : 1);
    if (n > OCI_MANIFEST_REFERENCES_MAX)
        return err_code(err, ERR_INVALID, OCI_MANIFEST_INVALID,
                        "manifest refers to %zu things, the limit is %d", n,
                        OCI_MANIFEST_REFERENCES_MAX);
    reading->references = arena_alloc(reading->arena, n * sizeof(*reading->references));
    reading->foreign = arena_alloc(reading->arena, n * sizeof(*reading->foreign));

    if (!is_index &&
        reference_read(reading, config, (struct oci_place){"config", OCI_PLACE_NO_INDEX},
                       OCI_REFERENCE_CONFIG, err) != 0)
        return -1;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (reference_read(reading, json_array_get(list, i), (struct oci_place){name, i},
                           is_index ? OCI_REFERENCE_CHILD : OCI_REFERENCE_LAYER, err) != 0)
            return -1;
    reading->manifest->references = reading->references;
    reading->manifest->foreign = reading->foreign;
    return 0;
}

/* A subject whose digest cannot be verified here is passed over: without OCI-Subject in the answer
 * the client keeps the list of referrers by itself. dist-spec, "Pushing Manifests with Subject". */
static int subject_read(const json_t *json, struct oci_manifest *manifest, struct err *err)
{
    const json_t *subject = oci_json_field(json, "subject");
    struct oci_descriptor_read read;
    if (subject == NULL)
        return 0;
    if (oci_descriptor_read(subject, (struct oci_place){"subject", OCI_PLACE_NO_INDEX}, &read,
                            err) != 0)
        return -1;
    manifest->has_subject = read.is_ours;
    if (read.is_ours)
        manifest->subject = read.descriptor.digest;
    return 0;
}

/* ---- What referrers list of it ---- */

/* dist-spec, "Listing Referrers": artifactType, else the config's media type. */
static int artifact_type_read(struct arena *arena, const json_t *json,
                              struct oci_manifest *manifest, struct err *err)
{
    struct str type;
    if (oci_json_string(json, OCI_PLACE_DOCUMENT, "artifactType", &type, err) != 0)
        return -1;
    if (type.n > OCI_MEDIA_TYPE_BYTES_MAX)
        return bad(err, "artifactType", "is longer than a media type can be, 255 bytes");
    if (type.n == 0) { /* an index has no config */
        const json_t *inherited = json_object_get(json_object_get(json, "config"), "mediaType");
        type = (struct str){json_string_value(inherited), json_string_length(inherited)};
    }
    manifest->artifact_type = str_dup(arena, type);
    return 0;
}

static int annotations_read(struct arena *arena, const json_t *json, struct oci_manifest *manifest,
                            struct err *err)
{
    json_t *annotations = json_object_get(json, "annotations");
    if (annotations == NULL || json_is_null(annotations))
        return 0;
    if (!json_is_object(annotations))
        return bad(err, "annotations", "must be an object of strings");
    const char *key;
    json_t *value;
    json_object_foreach(annotations, key, value)
    {
        if (!json_is_string(value))
            return bad(err, "annotations", "must hold only strings");
    }
    if (json_object_size(annotations) == 0)
        return 0;
    auto_mem char *text = json_dumps(annotations, JSON_COMPACT);
    if (text == NULL)
        return err_set(err, ERR_BUSY, "not enough memory to read the manifest");
    manifest->annotations = str_dup(arena, str_from(text));
    return 0;
}

int oci_manifest_parse(struct arena *arena, struct str content_type, struct str body,
                       struct oci_manifest *ret, struct err *err)
{
    json_auto_t *json = NULL;
    if (oci_json_read(body, &json, err) != 0)
        return -1;

    struct oci_manifest manifest = {0};
    struct reading reading = {.arena = arena, .manifest = &manifest};
    if (type_read(json, content_type, &manifest, err) != 0 ||
        check_one_shape(json, manifest.is_index, err) != 0 ||
        references_read(&reading, json, err) != 0 || subject_read(json, &manifest, err) != 0 ||
        artifact_type_read(arena, json, &manifest, err) != 0 ||
        annotations_read(arena, json, &manifest, err) != 0)
        return -1;
    *ret = manifest;
    return 0;
}
