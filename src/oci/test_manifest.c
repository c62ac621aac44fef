#include "oci/oci.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* JSON in these tests has ' for ", to be readable in C. */

#define MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define INDEX "application/vnd.oci.image.index.v1+json"
#define DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"

#define HEX_A "b5b2b2c507a0944348e0303114d8d93aaaa081732b86451d9bce1f432a537bc7"
#define HEX_B "9834876dcfb05cb167a5c24953eba58c4ac89b1adf57f28f2f9d09af107ee8f0"
#define HEX_C "3c3a4604a545cdc127456d94e421cd355bca5b528f4a9c1905b15da2eb4a4c6b"
#define HEX_D "ec4b8955958665577945c89419d1af06b5f7636b4ac3da7f12184802ad867736"
#define HEX_E "5b0bcabd1ed22e9fb1310cf6c2dec7cdef19f0ad69efa1f392e94a4333501270"
#define HEX_F "e692418e4cbaf90ca69d05a66403747baa33ee08806650b51fab815ad7fc331f"
#define HEX_BRACES "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"

#define DESCRIPTOR(type, size, hex) \
    "{'mediaType':'" type "','size':" #size ",'digest':'sha256:" hex "'}"
#define DIGEST_FIELD "'digest':'sha256:" HEX_B "'"
#define CONFIG DESCRIPTOR("application/vnd.oci.image.config.v1+json", 7023, HEX_A)
#define LAYER DESCRIPTOR("application/vnd.oci.image.layer.v1.tar+gzip", 32654, HEX_B)
#define IMAGE(more) "{'schemaVersion':2,'config':" CONFIG ",'layers':[" LAYER "]" more "}"
#define LAYERS(list) "{'schemaVersion':2,'config':" CONFIG ",'layers':[" list "]}"
#define CHILDREN(list) "{'schemaVersion':2,'mediaType':'" INDEX "','manifests':[" list "]}"

static struct str json(struct arena *arena, const char *text)
{
    char *copy = str_z(arena, str_from(text));
    for (char *p = copy; *p != '\0'; p++)
        if (*p == '\'')
            *p = '"';
    return str_from(copy);
}

static struct oci_manifest parsed(struct arena *arena, const char *content_type, const char *body)
{
    struct err err;
    struct oci_manifest manifest;
    if (oci_manifest_parse(arena, str_from(content_type), json(arena, body), &manifest, &err) != 0)
        fail_msg("refused: %s", err.say);
    return manifest;
}

static void assert_str(struct str got, const char *expected)
{
    if (!str_eq(got, str_from(expected)))
        fail_msg("\"" STR_FMT "\" is not \"%s\"", STR_ARG(got), expected);
}

static void assert_digest(const struct oci_digest *digest, const char *expected)
{
    char text[OCI_DIGEST_TEXT_MAX + 1];
    assert_str(oci_digest_format(digest, text), expected);
}

static void assert_descriptor(const struct oci_descriptor *got, enum oci_reference_kind kind,
                              const char *media_type, uint64_t size, const char *digest)
{
    assert_int_equal(got->kind, kind);
    assert_str(got->media_type, media_type);
    assert_true(got->size == size);
    assert_digest(&got->digest, digest);
}

/* ---- What must pass ---- */

/* image-spec, "Example Image Manifest". */
static void the_image_of_the_specification(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, MANIFEST,
               "{\n  'schemaVersion': 2,\n  'mediaType': '" MANIFEST "',\n"
               "  'config': {\n    'mediaType': 'application/vnd.oci.image.config.v1+json',\n"
               "    'digest': 'sha256:" HEX_A "',\n    'size': 7023\n  },\n"
               "  'layers': [\n"
               "    {\n      'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip',\n"
               "      'digest': 'sha256:" HEX_B "',\n      'size': 32654\n    },\n"
               "    {\n      'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip',\n"
               "      'digest': 'sha256:" HEX_C "',\n      'size': 16724\n    },\n"
               "    {\n      'mediaType': 'application/vnd.oci.image.layer.v1.tar+gzip',\n"
               "      'digest': 'sha256:" HEX_D "',\n      'size': 73109\n    }\n  ],\n"
               "  'subject': {\n    'mediaType': '" MANIFEST "',\n"
               "    'digest': 'sha256:" HEX_E "',\n    'size': 7682\n  },\n"
               "  'annotations': {\n    'com.example.key1': 'value1',\n"
               "    'com.example.key2': 'value2'\n  }\n}\n");
    assert_str(manifest.media_type, MANIFEST);
    assert_false(manifest.is_index);
    assert_str(manifest.artifact_type, "application/vnd.oci.image.config.v1+json");
    assert_true(manifest.has_subject);
    assert_digest(&manifest.subject, "sha256:" HEX_E);
    assert_true(str_eq(manifest.annotations, json(&arena, "{'com.example.key1':'value1',"
                                                          "'com.example.key2':'value2'}")));
    const char *layer = "application/vnd.oci.image.layer.v1.tar+gzip";
    assert_int_equal(manifest.n_references, 4);
    assert_int_equal(manifest.n_foreign, 0);
    assert_descriptor(&manifest.references[0], OCI_REFERENCE_CONFIG,
                      "application/vnd.oci.image.config.v1+json", 7023, "sha256:" HEX_A);
    assert_descriptor(&manifest.references[1], OCI_REFERENCE_LAYER, layer, 32654, "sha256:" HEX_B);
    assert_descriptor(&manifest.references[2], OCI_REFERENCE_LAYER, layer, 16724, "sha256:" HEX_C);
    assert_descriptor(&manifest.references[3], OCI_REFERENCE_LAYER, layer, 73109, "sha256:" HEX_D);
}

/* image-spec, "Example Image Index". */
static void the_index_of_the_specification(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, INDEX,
               "{'schemaVersion': 2, 'mediaType': '" INDEX "', 'manifests': ["
               "{'mediaType': '" MANIFEST "', 'size': 7143, 'digest': 'sha256:" HEX_F "',"
               " 'platform': {'architecture': 'ppc64le', 'os': 'linux'}},"
               "{'mediaType': '" MANIFEST "', 'size': 7682, 'digest': 'sha256:" HEX_E "',"
               " 'platform': {'architecture': 'amd64', 'os': 'linux'}}],"
               "'annotations': {'com.example.key1': 'value1', 'com.example.key2': 'value2'}}");
    assert_str(manifest.media_type, INDEX);
    assert_true(manifest.is_index);
    assert_false(manifest.has_subject);
    assert_int_equal(manifest.artifact_type.n, 0); /* an index has no config to inherit from */
    assert_int_equal(manifest.n_references, 2);
    assert_descriptor(&manifest.references[0], OCI_REFERENCE_CHILD, MANIFEST, 7143,
                      "sha256:" HEX_F);
    assert_descriptor(&manifest.references[1], OCI_REFERENCE_CHILD, MANIFEST, 7682,
                      "sha256:" HEX_E);
}

/* image-spec, "Guidelines for Artifact Usage" and "Guidance for an Empty Descriptor". */
static void the_artifact_of_the_specification(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, "",
               "{'schemaVersion': 2, 'mediaType': '" MANIFEST "',"
               "'artifactType': 'application/vnd.example+type',"
               "'config': {'mediaType': 'application/vnd.oci.empty.v1+json',"
               "  'digest': 'sha256:" HEX_BRACES "', 'size': 2, 'data': 'e30='},"
               "'layers': [{'mediaType': 'application/vnd.oci.empty.v1+json',"
               "  'digest': 'sha256:" HEX_BRACES "', 'size': 2, 'data': 'e30='}],"
               "'annotations': {'oci.opencontainers.image.created': '2023-01-02T03:04:05Z',"
               "  'com.example.data': 'payload'}}");
    assert_str(manifest.artifact_type, "application/vnd.example+type");
    assert_int_equal(manifest.n_references, 2); /* duplicates are kept */
    assert_true(oci_digest_eq(&manifest.references[0].digest, &manifest.references[1].digest));
}

/* Docker, "Image Manifest Version 2, Schema 2". */
static void images_and_lists_of_docker(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest image = parsed(
        &arena, DOCKER_MANIFEST,
        "{'schemaVersion': 2, 'mediaType': '" DOCKER_MANIFEST "', 'config': " DESCRIPTOR(
            "application/vnd.docker.container.image.v1+json", 7023,
            HEX_A) ", 'layers': [" DESCRIPTOR("application/vnd.docker.image.rootfs.diff.tar.gzip",
                                              32654, HEX_B) "]}");
    assert_str(image.media_type, DOCKER_MANIFEST);
    assert_false(image.is_index);
    assert_int_equal(image.n_references, 2);

    struct oci_manifest list =
        parsed(&arena, DOCKER_LIST,
               "{'schemaVersion': 2, 'mediaType': '" DOCKER_LIST "', 'manifests': ["
               "{'mediaType': '" DOCKER_MANIFEST "', 'size': 7143, 'digest': 'sha256:" HEX_F "',"
               " 'platform': {'architecture': 'amd64', 'os': 'linux', 'features': ['sse4']}}]}");
    assert_str(list.media_type, DOCKER_LIST);
    assert_true(list.is_index);
    assert_descriptor(&list.references[0], OCI_REFERENCE_CHILD, DOCKER_MANIFEST, 7143,
                      "sha256:" HEX_F);
}

static void the_media_type_is_of_body_then_header_then_shape(void **state)
{
    (void)state;
    auto_arena arena = {0};
    assert_str(parsed(&arena, "", IMAGE(",'mediaType':'" DOCKER_MANIFEST "'")).media_type,
               DOCKER_MANIFEST);
    assert_str(parsed(&arena, DOCKER_MANIFEST, IMAGE("")).media_type, DOCKER_MANIFEST);
    assert_str(parsed(&arena, "", IMAGE("")).media_type, MANIFEST);
    assert_str(parsed(&arena, "", IMAGE(",'mediaType':''")).media_type, MANIFEST);
    assert_str(parsed(&arena, "", "{'schemaVersion':2,'manifests':[]}").media_type, INDEX);
    assert_str(parsed(&arena, "Application/VND.oci.image.Manifest.v1+JSON",
                      IMAGE(",'mediaType':'" MANIFEST "'"))
                   .media_type,
               MANIFEST);
}

/* Lists may be empty; Go's encoder writes null for a slice that was never filled. */
static void lists_may_be_empty(void **state)
{
    (void)state;
    auto_arena arena = {0};
    assert_int_equal(parsed(&arena, "", LAYERS("")).n_references, 1);
    assert_int_equal(parsed(&arena, INDEX, CHILDREN("")).n_references, 0);
    assert_int_equal(
        parsed(&arena, "", "{'schemaVersion':2,'config':" CONFIG ",'layers':null}").n_references,
        1);
    assert_int_equal(parsed(&arena, INDEX, "{'schemaVersion':2,'manifests':null}").n_references, 0);
}

static void what_is_not_known_passes(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, "",
               "{'schemaVersion':2,'x':{'y':[1,2.5,true,null]},'config':{'mediaType':'x/config',"
               "'size':0,'digest':'sha256:" HEX_A "','z':1},'layers':[{'mediaType':'','size':1,"
               "'digest':'sha256:" HEX_B "','annotations':{'a':'b'}}],'subject':null,"
               "'annotations':null,'artifactType':null}");
    assert_str(manifest.artifact_type, "x/config");
    assert_int_equal(manifest.annotations.n, 0);
    assert_false(manifest.has_subject);
    assert_int_equal(manifest.n_references, 2);

    struct oci_manifest index =
        parsed(&arena, INDEX,
               CHILDREN(DESCRIPTOR(INDEX, 1, HEX_A) "," DESCRIPTOR(
                   "application/vnd.oci.image.layer.v1.tar+zstd", 2,
                   HEX_B) "," DESCRIPTOR("application/vnd.buildkit.cacheconfig.v0", 3, HEX_C)));
    assert_int_equal(index.n_references, 3); /* nested indexes, and blobs as older caches have */
}

static void sizes_reach_to_the_largest_signed_number(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, "", LAYERS(DESCRIPTOR("x/y", 9223372036854775807, HEX_B)));
    assert_true(manifest.references[1].size == INT64_MAX);
}

static void digests_of_other_algorithms_pass_and_are_not_listed(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, "",
               LAYERS(LAYER ",{'mediaType':'x/y','size':1,'digest':'blake3:" HEX_B "'},"
                            "{'mediaType':'x/y','size':1,'digest':'sha512:" HEX_A HEX_B "'},"
                            "{'mediaType':'x/y','size':1,'digest':'multihash+base58:QmRZxt2b'}"));
    assert_int_equal(manifest.n_references, 3);
    assert_int_equal(manifest.n_foreign, 0);
    assert_digest(&manifest.references[2].digest, "sha512:" HEX_A HEX_B);

    manifest = parsed(&arena, "",
                      IMAGE(",'subject':{'mediaType':'x/y','size':1,'digest':'blake3:" HEX_B "'}"));
    assert_false(manifest.has_subject);
}

/* dist-spec 1.1.1: `subject` in an image manifest or an index. */
static void an_index_may_have_a_subject_and_an_artifact_type(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest index =
        parsed(&arena, "",
               "{'schemaVersion':2,'mediaType':'" INDEX "','artifactType':'x/y','manifests':[],"
               "'subject':" DESCRIPTOR(MANIFEST, 7682, HEX_E) "}");
    assert_true(index.has_subject);
    assert_digest(&index.subject, "sha256:" HEX_E);
    assert_str(index.artifact_type, "x/y");
}

static void types_of_manifests_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *type;
        bool is_manifest;
        bool is_index;
    } rows[] = {
        {"application/vnd.oci.image.manifest.v1+json", true, false},
        {"application/vnd.oci.image.index.v1+json", true, true},
        {"Application/vnd.OCI.image.INDEX.v1+json", true, true},
        {"application/vnd.docker.distribution.manifest.v2+json", true, false},
        {"application/vnd.docker.distribution.manifest.list.v2+json", true, true},
        {"application/vnd.docker.distribution.manifest.v1+json", true, false},
        {"application/vnd.docker.distribution.manifest.v1+prettyjws", true, false},
        {"application/vnd.oci.image.config.v1+json", false, false},
        {"application/vnd.oci.image.index.v1+jso", false, false},
        {"", false, false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        assert_int_equal(oci_media_type_is_manifest(str_from(rows[i].type)), rows[i].is_manifest);
        assert_int_equal(oci_media_type_is_index(str_from(rows[i].type)), rows[i].is_index);
    }
}

static void foreign_layers_may_be_absent(void **state)
{
    (void)state;
    static const char *const foreign[] = {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
    };
    static const char *const ordinary[] = {
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.oci.image.config.v1+json",
        "",
    };
    for (size_t i = 0; i < ARRAY_SIZE(foreign); i++)
        assert_true(oci_layer_is_foreign(str_from(foreign[i])));
    for (size_t i = 0; i < ARRAY_SIZE(ordinary); i++)
        assert_false(oci_layer_is_foreign(str_from(ordinary[i])));

    auto_arena arena = {0};
    struct oci_manifest manifest = parsed(
        &arena, "",
        LAYERS(LAYER ",{'mediaType':'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',"
                     "'size':3,'digest':'sha256:" HEX_C "'},"
                     "{'mediaType':'x/y','size':4,'digest':'sha256:" HEX_D "',"
                     "'urls':['https://example.com/layer']},"
                     "{'mediaType':'x/y','size':5,'digest':'sha256:" HEX_E "','urls':[]}"));
    assert_int_equal(manifest.n_references, 3);
    assert_digest(&manifest.references[2].digest, "sha256:" HEX_E);
    assert_int_equal(manifest.n_foreign, 2);
    assert_digest(&manifest.foreign[0].digest, "sha256:" HEX_C);
    assert_digest(&manifest.foreign[1].digest, "sha256:" HEX_D);
}

/* A config is no layer; an entry of an index is one when its type says so. */
static void only_layers_are_foreign(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest image =
        parsed(&arena, "",
               "{'schemaVersion':2,'config':{'mediaType':"
               "'application/vnd.oci.image.layer.nondistributable.v1.tar','size':1," DIGEST_FIELD
               ",'urls':['https://example.com/config']},'layers':[]}");
    assert_int_equal(image.n_references, 1);
    assert_int_equal(image.n_foreign, 0);

    struct oci_manifest index =
        parsed(&arena, "",
               CHILDREN("{'mediaType':'" MANIFEST "','size':1," DIGEST_FIELD
                        ",'urls':['https://example.com/manifest']}," DESCRIPTOR(
                            "application/vnd.oci.image.layer.nondistributable.v1.tar", 2, HEX_C)));
    assert_int_equal(index.n_references, 1);
    assert_descriptor(&index.references[0], OCI_REFERENCE_CHILD, MANIFEST, 1, "sha256:" HEX_B);
    assert_int_equal(index.n_foreign, 1);
    assert_digest(&index.foreign[0].digest, "sha256:" HEX_C);
}

static void annotations_become_one_compact_object(void **state)
{
    (void)state;
    auto_arena arena = {0};
    struct oci_manifest manifest =
        parsed(&arena, "", IMAGE(",'annotations': { 'b' : '\\u00e9\\n' ,\n 'a' : '' }"));
    assert_true(str_eq(manifest.annotations, json(&arena, "{'b':'\xc3\xa9\\n','a':''}")));
    assert_int_equal(parsed(&arena, "", IMAGE(",'annotations':{}")).annotations.n, 0);
}

/* ---- What must be refused ---- */

static void refused(const char *content_type, const char *body, const char *code,
                    const char *because)
{
    auto_arena arena = {0};
    struct err err;
    struct oci_manifest manifest = {.n_references = 7};
    if (oci_manifest_parse(&arena, str_from(content_type), json(&arena, body), &manifest, &err) ==
        0)
        fail_msg("passed: %s", body);
    assert_int_equal(err.kind, ERR_INVALID);
    assert_string_equal(err.code, code);
    if (strstr(err.say, because) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", err.say, because);
    assert_int_equal(manifest.n_references, 7);
}

static void what_is_not_json_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *because;
    } cases[] = {
        {"", "is empty"},
        {"{", "line 1"},
        {"hello", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"[{}]", "not a JSON object"},
        {"'x'", "not valid JSON"},
        {IMAGE("") "x", "not valid JSON"},
        {IMAGE("") IMAGE(""), "not valid JSON"},
        {IMAGE(",'a':1,'a':1"), "duplicate"},
        {IMAGE(",'schemaVersion':2"), "duplicate"},
        {IMAGE(",'a':'\\u0000'"), "not valid JSON"},
        {IMAGE(",'\\u0000':1"), "not valid JSON"},
        {IMAGE(",'a':'\xff'"), "not valid JSON"},
        {IMAGE(",'a':'\n'"), "not valid JSON"},
        {IMAGE(",'a':'\\"), "not valid JSON"},
        {"\xef\xbb\xbf" IMAGE(""), "not valid JSON"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        refused("", cases[i].body, "MANIFEST_INVALID", cases[i].because);
}

static void wrong_media_types_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *content_type;
        const char *body;
        const char *because;
    } cases[] = {
        {MANIFEST, "{'schemaVersion':1,'name':'a','tag':'b','fsLayers':[]}", "schema 1"},
        {"application/vnd.docker.distribution.manifest.v1+prettyjws", IMAGE(""), "schema 1"},
        {"", IMAGE(",'mediaType':'application/vnd.docker.distribution.manifest.v1+json'"),
         "schema 1"},
        {MANIFEST, "{'config':" CONFIG ",'layers':[]}", "\"schemaVersion\" must be the number 2"},
        {"", "{'schemaVersion':3}", "\"schemaVersion\" must be the number 2"},
        {"", "{'schemaVersion':'2'}", "\"schemaVersion\" must be the number 2"},
        {"", "{'schemaVersion':2.0}", "\"schemaVersion\" must be the number 2"},
        {MANIFEST, IMAGE(",'mediaType':'" DOCKER_MANIFEST "'"), "send the same in both"},
        {"application/json", IMAGE(",'mediaType':'" MANIFEST "'"), "send the same in both"},
        {"application/json", IMAGE(""), "\"application/json\" is unknown"},
        {"", IMAGE(",'mediaType':'x/y'"), "\"x/y\" is unknown"},
        {"", IMAGE(",'mediaType':5"), "\"mediaType\" must be a string"},
        {"", "{'schemaVersion':2}", "does not say what it is"},
        {"", "{'schemaVersion':2,'config':" CONFIG "}", "does not say what it is"},
        {"", "{'schemaVersion':2,'layers':[]}", "does not say what it is"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        refused(cases[i].content_type, cases[i].body, "MANIFEST_INVALID", cases[i].because);

    /* Withdrawn before image-spec 1.1. The error names all that is accepted, up to the last. */
    const char *artifact = "application/vnd.oci.artifact.manifest.v1+json";
    const char *body = "{'mediaType':'application/vnd.oci.artifact.manifest.v1+json',"
                       "'schemaVersion':2,'artifactType':'x/y','blobs':[]}";
    refused(artifact, body, "MANIFEST_INVALID", "artifact.manifest.v1+json\" is unknown");
    static const char *const known[] = {MANIFEST, INDEX, DOCKER_MANIFEST, DOCKER_LIST};
    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        refused("", body, "MANIFEST_INVALID", known[i]);
}

static void wrong_shapes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        const char *because;
    } cases[] = {
        {IMAGE(",'manifests':[]"), "\"layers\" must not be in an index"},
        {IMAGE(",'mediaType':'" MANIFEST "','manifests':[]"),
         "\"manifests\" must not be in an image manifest"},
        {IMAGE(",'mediaType':'" INDEX "'"), "\"layers\" must not be in an index"},
        {"{'schemaVersion':2,'config':" CONFIG ",'manifests':[]}",
         "\"config\" must not be in an index"},
        {"{'schemaVersion':2,'mediaType':'" INDEX "'}", "\"manifests\" is missing"},
        {"{'schemaVersion':2,'mediaType':'" INDEX "','manifests':{}}",
         "\"manifests\" must be an array"},
        {"{'schemaVersion':2,'mediaType':'" MANIFEST "','config':" CONFIG "}",
         "\"layers\" is missing"},
        {"{'schemaVersion':2,'mediaType':'" MANIFEST "','layers':[]}", "\"config\" is missing"},
        {"{'schemaVersion':2,'config':[],'layers':[]}", "\"config\" must be an object"},
        {"{'schemaVersion':2,'config':" CONFIG ",'layers':{}}", "\"layers\" must be an array"},
        {LAYERS(LAYER ",1"), "\"layers[1]\" must be an object"},
        {CHILDREN("null"), "\"manifests[0]\" must be an object"},
        {IMAGE(",'subject':'x'"), "\"subject\" must be an object"},
        {IMAGE(",'subject':{}"), "\"subject.mediaType\" is missing"},
        {IMAGE(",'artifactType':1"), "\"artifactType\" must be a string"},
        {IMAGE(",'annotations':[]"), "\"annotations\" must be an object"},
        {IMAGE(",'annotations':{'a':1}"), "\"annotations\" must hold only strings"},
        {IMAGE(",'annotations':{'a':null}"), "\"annotations\" must hold only strings"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        refused("", cases[i].body, "MANIFEST_INVALID", cases[i].because);
}

static void wrong_descriptors_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *layer;
        const char *because;
    } cases[] = {
        {"{'size':1," DIGEST_FIELD "}", "\"layers[0].mediaType\" is missing"},
        {"{'mediaType':1,'size':1," DIGEST_FIELD "}", "\"layers[0].mediaType\" must be a string"},
        {"{'mediaType':'x/y','size':1}", "\"layers[0].digest\" is missing"},
        {"{'mediaType':'x/y','size':1,'digest':5}", "\"layers[0].digest\" must be a string"},
        {"{'mediaType':'x/y'," DIGEST_FIELD "}", "\"layers[0].size\" is missing"},
        {"{'mediaType':'x/y','size':-1," DIGEST_FIELD "}", "\"layers[0].size\" must be a whole"},
        {"{'mediaType':'x/y','size':1.5," DIGEST_FIELD "}", "\"layers[0].size\" must be a whole"},
        {"{'mediaType':'x/y','size':1e3," DIGEST_FIELD "}", "\"layers[0].size\" must be a whole"},
        {"{'mediaType':'x/y','size':'1'," DIGEST_FIELD "}", "\"layers[0].size\" must be a whole"},
        {"{'mediaType':'x/y','size':9223372036854775808," DIGEST_FIELD "}", "too big integer"},
        {"{'mediaType':'x/y','size':1," DIGEST_FIELD ",'urls':'a'}",
         "\"layers[0].urls\" must be an array"},
        {"{'mediaType':'x/y','size':1," DIGEST_FIELD ",'urls':[1]}",
         "\"layers[0].urls\" must be an array"},
        {"{'mediaType':'x/y','size':1," DIGEST_FIELD ",'data':1}",
         "\"layers[0].data\" must be a string"},
        {"{'mediaType':'x/y','size':3," DIGEST_FIELD ",'data':'e30='}",
         "\"layers[0].data\" does not hold"},
        {"{'mediaType':'x/y','size':1," DIGEST_FIELD ",'data':''}",
         "\"layers[0].data\" does not hold"},
        {"{'mediaType':'x/y','size':2," DIGEST_FIELD ",'data':'e30'}", "must be base64"},
        {"{'mediaType':'x/y','size':2," DIGEST_FIELD ",'data':'e3-='}", "must be base64"},
        {"{'mediaType':'x/y','size':0," DIGEST_FIELD ",'data':'===='}", "must be base64"},
        {"{'mediaType':'x/y','size':2," DIGEST_FIELD ",'data':'e=0='}", "must be base64"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        auto_arena arena = {0};
        struct str body = str_printf(
            &arena, "{'schemaVersion':2,'config':" CONFIG ",'layers':[%s]}", cases[i].layer);
        refused("", body.p, "MANIFEST_INVALID", cases[i].because);
    }
    refused("", LAYERS(LAYER "," DESCRIPTOR("x/y", 1, "abc")), "DIGEST_INVALID",
            "\"layers[1].digest\" is malformed");
    refused("", LAYERS("{'mediaType':'x/y','size':1,'digest':'x'}"), "DIGEST_INVALID",
            "\"layers[0].digest\" is malformed");
    refused("", IMAGE(",'subject':" DESCRIPTOR("x/y", 1, "abc")), "DIGEST_INVALID",
            "\"subject.digest\" is malformed");
}

/* ---- Bounds ---- */

/* `n` times `piece` between `before` and `after`. */
static const char *repeated(struct arena *arena, const char *before, const char *piece, size_t n,
                            const char *after)
{
    auto_buf buf = BUF_INIT((size_t)64 * 1024 * 1024);
    buf_add_str(&buf, str_from(before));
    for (size_t i = 0; i < n; i++)
        buf_add_str(&buf, str_from(piece));
    buf_add_str(&buf, str_from(after));
    assert_false(buf.overflow);
    return str_z(arena, buf_str(&buf));
}

static void depth_is_limited(void **state)
{
    (void)state;
    auto_arena arena = {0};
    const char *before = "{'schemaVersion':2,'manifests':[],'x':";
    const char *deep = repeated(&arena, "", "[", OCI_MANIFEST_DEPTH_MAX - 1, "");
    deep = repeated(&arena, deep, "]", OCI_MANIFEST_DEPTH_MAX - 1, "}");
    (void)parsed(&arena, "", repeated(&arena, before, deep, 1, ""));
    deep = repeated(&arena, "", "[", OCI_MANIFEST_DEPTH_MAX, "");
    deep = repeated(&arena, deep, "]", OCI_MANIFEST_DEPTH_MAX, "}");
    refused("", repeated(&arena, before, deep, 1, ""), "MANIFEST_INVALID", "deeper than 64");
    refused("", repeated(&arena, "", "[", 1000 * 1000, ""), "MANIFEST_INVALID", "deeper than 64");
    refused("", repeated(&arena, "", "{'a':", 1000 * 1000, ""), "MANIFEST_INVALID",
            "deeper than 64");
    /* Brackets in strings are text, behind whatever escapes. */
    (void)parsed(&arena, "",
                 repeated(&arena, "{'schemaVersion':2,'manifests':[],'x':'\\\\\\'", "[{\\\"", 1000,
                          "\\\\'}"));
}

static void values_are_limited(void **state)
{
    (void)state;
    auto_arena arena = {0};
    /* Before the list goes on: the object, its three fields and the first zero, and one more for
     * the empty list, which may turn out to have a value. */
    const char *before = "{'schemaVersion':2,'manifests':[],'x':[0";
    (void)parsed(&arena, "", repeated(&arena, before, ",0", OCI_MANIFEST_VALUES_MAX - 6, "]}"));
    refused("", repeated(&arena, before, ",0", OCI_MANIFEST_VALUES_MAX - 5, "]}"),
            "MANIFEST_INVALID", "more than 200000 values");
    refused("", repeated(&arena, before, ",{}", 1300 * 1000, "]}"), "MANIFEST_INVALID",
            "more than 200000 values");
}

/* The conformance suite pushes a manifest of 390 annotations with 10000 bytes each. */
static void large_annotations_pass(void **state)
{
    (void)state;
    auto_arena arena = {0};
    const char *value = repeated(&arena, "", "x", 10000, "");
    auto_buf body = BUF_INIT((size_t)8 * 1024 * 1024);
    buf_add_str(&body, STR("{'schemaVersion':2,'manifests':[],'annotations':"));
    size_t start = body.n;
    for (int i = 0; i < 390; i++)
        buf_printf(&body, "%c'a%d':'%s'", i > 0 ? ',' : '{', i, value);
    buf_add_char(&body, '}');
    const char *annotations = str_z(&arena, str_from_at(buf_str(&body), start));
    buf_add_char(&body, '}');
    assert_false(body.overflow);
    assert_true(str_eq(parsed(&arena, "", body.p).annotations, json(&arena, annotations)));
}

static void references_are_limited(void **state)
{
    (void)state;
    auto_arena arena = {0};
    const char *child = DESCRIPTOR("x/y", 1, HEX_A);
    const char *more = "," DESCRIPTOR("x/y", 1, HEX_A);
    const char *before = "{'schemaVersion':2,'manifests':[";
    before = repeated(&arena, before, child, 1, "");
    struct oci_manifest manifest =
        parsed(&arena, "", repeated(&arena, before, more, OCI_MANIFEST_REFERENCES_MAX - 1, "]}"));
    assert_int_equal(manifest.n_references, OCI_MANIFEST_REFERENCES_MAX);
    refused("", repeated(&arena, before, more, OCI_MANIFEST_REFERENCES_MAX, "]}"),
            "MANIFEST_INVALID", "refers to 10001 things");
}

static void media_types_are_limited(void **state)
{
    (void)state;
    auto_arena arena = {0};
    const char *fits = repeated(&arena, "", "x", OCI_MEDIA_TYPE_BYTES_MAX, "");
    const char *before = "{'schemaVersion':2,'manifests':[],'artifactType':'";
    assert_str(parsed(&arena, "", repeated(&arena, before, fits, 1, "'}")).artifact_type, fits);
    refused("", repeated(&arena, before, fits, 1, "x'}"), "MANIFEST_INVALID",
            "\"artifactType\" is longer");
    before = "{'schemaVersion':2,'manifests':[{'size':1," DIGEST_FIELD ",'mediaType':'";
    (void)parsed(&arena, "", repeated(&arena, before, fits, 1, "'}]}"));
    refused("", repeated(&arena, before, fits, 1, "x'}]}"), "MANIFEST_INVALID",
            "\"manifests[0].mediaType\" is longer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_image_of_the_specification),
        cmocka_unit_test(the_index_of_the_specification),
        cmocka_unit_test(the_artifact_of_the_specification),
        cmocka_unit_test(images_and_lists_of_docker),
        cmocka_unit_test(the_media_type_is_of_body_then_header_then_shape),
        cmocka_unit_test(lists_may_be_empty),
        cmocka_unit_test(what_is_not_known_passes),
        cmocka_unit_test(sizes_reach_to_the_largest_signed_number),
        cmocka_unit_test(digests_of_other_algorithms_pass_and_are_not_listed),
        cmocka_unit_test(an_index_may_have_a_subject_and_an_artifact_type),
        cmocka_unit_test(types_of_manifests_are_told),
        cmocka_unit_test(foreign_layers_may_be_absent),
        cmocka_unit_test(only_layers_are_foreign),
        cmocka_unit_test(annotations_become_one_compact_object),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(wrong_media_types_are_refused),
        cmocka_unit_test(wrong_shapes_are_refused),
        cmocka_unit_test(wrong_descriptors_are_refused),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(values_are_limited),
        cmocka_unit_test(large_annotations_pass),
        cmocka_unit_test(references_are_limited),
        cmocka_unit_test(media_types_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
