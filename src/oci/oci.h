/* oci: the words of the OCI specifications as types. Pure: no I/O, no state, no SQL.
 *
 * Text from outside becomes a digest, a repository name, a reference or a manifest here and only
 * here; no room below api takes them as text. Parsers accept no trailing bytes and never read past
 * the end. What follows "Spec" names the clause; "dist-spec" is the OCI Distribution Specification
 * 1.1.1, "dist-spec dev" its development version, "image-spec" the OCI Image Specification 1.1.1.
 * Threads: any. */
#ifndef HOLDFAST_OCI_H
#define HOLDFAST_OCI_H

#include "base/base.h"

/* ---- Error codes (dist-spec, "Error codes") and the legacy ones that clients know ---- */

#define OCI_BLOB_UNKNOWN "BLOB_UNKNOWN"
#define OCI_BLOB_UPLOAD_INVALID "BLOB_UPLOAD_INVALID"
#define OCI_BLOB_UPLOAD_UNKNOWN "BLOB_UPLOAD_UNKNOWN"
#define OCI_DIGEST_INVALID "DIGEST_INVALID"
#define OCI_MANIFEST_BLOB_UNKNOWN "MANIFEST_BLOB_UNKNOWN"
#define OCI_MANIFEST_INVALID "MANIFEST_INVALID"
#define OCI_MANIFEST_UNKNOWN "MANIFEST_UNKNOWN"
#define OCI_NAME_INVALID "NAME_INVALID"
#define OCI_NAME_UNKNOWN "NAME_UNKNOWN"
#define OCI_SIZE_INVALID "SIZE_INVALID"
#define OCI_UNAUTHORIZED "UNAUTHORIZED"
#define OCI_DENIED "DENIED"
#define OCI_UNSUPPORTED "UNSUPPORTED"
#define OCI_TOOMANYREQUESTS "TOOMANYREQUESTS"
#define OCI_UNAVAILABLE "UNAVAILABLE"
#define OCI_UNKNOWN "UNKNOWN"
#define OCI_TAG_INVALID "TAG_INVALID"
#define OCI_RANGE_INVALID "RANGE_INVALID"
#define OCI_PAGINATION_NUMBER_INVALID "PAGINATION_NUMBER_INVALID"

/* ---- Digests (image-spec, "Digests") ---- */

#define OCI_DIGEST_TEXT_MAX (sizeof("sha512:") - 1 + 2 * HASH_BYTES_MAX)

struct oci_digest {
    enum hash_algorithm algorithm;
    uint8_t bytes[HASH_BYTES_MAX]; /* hash_bytes(algorithm) of them are used, the rest is 0 */
};

/* sha256 or sha512 with exactly as many lower-case hexadecimal digits as it has.
 * Errors: INVALID with code DIGEST_INVALID; the text says whether the grammar is broken or the
 * algorithm is not one that can be verified here. */
int oci_digest_parse(struct str text, struct oci_digest *ret, struct err *err) MUST_CHECK;
/* "sha256" or "sha512". Errors: INVALID with code DIGEST_INVALID. dist-spec dev,
 * "digest-algorithm". */
int oci_algorithm_parse(struct str text, enum hash_algorithm *ret, struct err *err) MUST_CHECK;
/* Whether `text` follows the digest grammar, of whatever algorithm, and for sha256 and sha512 their
 * own: what a descriptor inside a manifest may hold. image-spec, "Digests": unknown algorithms pass
 * validation. */
bool oci_digest_is_wellformed(struct str text);
bool oci_digest_eq(const struct oci_digest *a, const struct oci_digest *b);
/* NUL-ended text; returns it as a str that borrows `text`. */
struct str oci_digest_format(const struct oci_digest *digest, char text[OCI_DIGEST_TEXT_MAX + 1]);
/* arena */
struct str oci_digest_text(struct arena *arena, const struct oci_digest *digest);
/* Ends `hash`. */
struct oci_digest oci_digest_from_hash(struct hash *hash);
struct oci_digest oci_digest_of(enum hash_algorithm algorithm, struct str bytes);

/* ---- Names and references (dist-spec, "Pulling manifests") ---- */

#define OCI_NAME_BYTES_MAX 255
#define OCI_TAG_BYTES_MAX 128

/* A repository name that follows the grammar and the length limit. Made only by its parser. */
struct oci_name {
    struct str text; /* borrowed from what was parsed */
};
/* Errors: INVALID with code NAME_INVALID. */
int oci_name_parse(struct str text, struct oci_name *ret, struct err *err) MUST_CHECK;

struct oci_tag {
    struct str text; /* borrowed from what was parsed */
};
/* Errors: INVALID with code TAG_INVALID. */
int oci_tag_parse(struct str text, struct oci_tag *ret, struct err *err) MUST_CHECK;

struct oci_reference {
    bool is_digest;
    struct oci_digest digest; /* when is_digest */
    struct oci_tag tag;       /* otherwise */
};
/* What contains ':' is a digest, never a tag. Errors: INVALID with DIGEST_INVALID or TAG_INVALID.
 */
int oci_reference_parse(struct str text, struct oci_reference *ret, struct err *err) MUST_CHECK;

/* ---- Manifests (image-spec, "Image Manifest", "Image Index"; Docker schema 2) ---- */

#define OCI_MEDIA_TYPE_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_MEDIA_TYPE_INDEX "application/vnd.oci.image.index.v1+json"
#define OCI_MEDIA_TYPE_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define OCI_MEDIA_TYPE_DOCKER_LIST "application/vnd.docker.distribution.manifest.list.v2+json"

/* Of a manifest or an index; of Docker's before 2016 too, which are not stored here. Media types
 * are compared without regard to case. */
bool oci_media_type_is_manifest(struct str text);
bool oci_media_type_is_index(struct str text);

/* Bounds on what a manifest may make us do; the byte limit is the server's setting. */
#define OCI_MANIFEST_DEPTH_MAX 64
#define OCI_MANIFEST_REFERENCES_MAX 10000
#define OCI_MANIFEST_VALUES_MAX 200000 /* 20 for each of so many references */
#define OCI_MEDIA_TYPE_BYTES_MAX 255   /* RFC 6838, section 4.2: 127 "/" 127 */

enum oci_reference_kind {
    OCI_REFERENCE_CONFIG,
    OCI_REFERENCE_LAYER,
    OCI_REFERENCE_CHILD, /* an entry of an index; a manifest, or a blob (older build caches) */
};

struct oci_descriptor {
    enum oci_reference_kind kind;
    struct str media_type; /* arena; may be empty */
    struct oci_digest digest;
    uint64_t size; /* bytes, as the manifest claims */
};

struct oci_manifest {
    struct str media_type; /* static or arena: what is stored and served as Content-Type */
    bool is_index;
    struct str artifact_type; /* arena; what referrers list: artifactType, else for an image
                                 manifest the config's media type; empty when there is none */
    bool has_subject;
    /* When has_subject. A subject whose algorithm is not one of ours counts as none. */
    struct oci_digest subject;
    struct str annotations; /* arena: the annotations as one compact JSON object, empty when there
                               are none */
    /* What must be present in the repository. Not among them: subject, layers whose type is
     * non-distributable or foreign or that have `urls`, and descriptors whose digest algorithm is
     * not one of ours. Arena. Duplicates are kept. */
    const struct oci_descriptor *references;
    size_t n_references;
    /* Those layers: they may be absent. Whoever collects garbage keeps the ones that were pushed
     * all the same. Arena. */
    const struct oci_descriptor *foreign;
    size_t n_foreign;
};

/* Reads `body` as the manifest that it says it is; `content_type` is the request's header without
 * parameters, empty when there was none. The media type is the body's mediaType, else the header's,
 * else what the shape says (`manifests`: index; `config` and `layers`: image). Unknown fields pass.
 * Results live in `arena`.
 * Errors, all INVALID with code MANIFEST_INVALID unless said, each naming the field and what was
 * expected: not JSON, duplicate keys, too deep, schema 1 (says what to do: use a client from this
 * decade), schemaVersion not 2, header and body disagree, unknown media type, descriptor without
 * mediaType/digest/size, negative or fractional size, malformed digest (DIGEST_INVALID), image
 * manifest with `manifests` or index with `layers` or `config`, wrong JSON types, `data` whose
 * decoded length is not `size`, too many references or values. BUSY when memory is gone. */
int oci_manifest_parse(struct arena *arena, struct str content_type, struct str body,
                       struct oci_manifest *ret, struct err *err) MUST_CHECK;
/* Whether layers of this type are left out of presence checks. image-spec,
 * "Non-Distributable Layers"; Docker's foreign layers. */
bool oci_layer_is_foreign(struct str media_type);

/* One entry of a referrers list, ready to be written. */
struct oci_referrer {
    struct str media_type;
    struct str digest;
    uint64_t size;
    struct str artifact_type; /* empty: left out */
    struct str annotations;   /* a JSON object as text; empty: left out */
};
/* Appends the descriptor as JSON. dist-spec, "Listing Referrers". */
void oci_referrer_format(struct buf *buf, const struct oci_referrer *referrer);

/* The largest index of referrers in one answer: clients read it with their manifest limit. */
#define OCI_REFERRERS_BYTES_MAX (4u * 1024 * 1024)

#endif
