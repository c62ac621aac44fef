/* The seam between the journey of an image and where it comes from: one table of functions for each
 * kind of source. Threads: any, all at once, but open and close. */
#ifndef HOLDFAST_IMPORTER_SOURCE_INT_H
#define HOLDFAST_IMPORTER_SOURCE_INT_H

#include "importer/importer.h"
#include "oci/oci.h"

#include <jansson.h>
#include <stdatomic.h>

/* Returns 0 to go on, -1 with *err to stop. `text` is borrowed for the call, and checked by whoever
 * takes it: it is what the source says. */
typedef int (*source_text_fn)(void *context, struct str text, struct err *err);
typedef int (*source_piece_fn)(void *context, struct str piece, struct err *err);

struct source_manifest {
    struct oci_digest digest; /* of the content; compared with what was asked for */
    struct str media_type;    /* as the source says; empty: it does not */
    struct str content;
};

struct importer_source {
    const struct source_kind *kind;
    atomic_bool stopping; /* set to end waits early: nobody wants the answer any more */
};

/* All return 0, or -1 with call->err: NOT_FOUND when it is not there, CORRUPT when bytes are not
 * what their digest says, TOO_LARGE, INVALID; IO, TIMEOUT and BUSY when the source may answer
 * later. Results live in call->arena. */
struct source_kind {
    bool is_remote; /* it may fall silent as a whole */
    int (*repositories)(struct importer_source *source, struct call *call, source_text_fn each,
                        void *context);
    /* The tags of a repository, then the digests of manifests that may have none. */
    int (*references)(struct importer_source *source, struct call *call,
                      const struct oci_name *name, source_text_fn each, void *context);
    /* The digest of a tag, cheaper than the manifest. *ret_known false: the source does not say. */
    int (*resolve)(struct importer_source *source, struct call *call, const struct oci_name *name,
                   const struct oci_tag *tag, struct oci_digest *ret, bool *ret_known);
    int (*manifest)(struct importer_source *source, struct call *call, const struct oci_name *name,
                    const struct oci_reference *reference, struct source_manifest *ret);
    /* Gives all bytes in order; that they are the digest's is for the taker to check. */
    int (*blob)(struct importer_source *source, struct call *call, const struct oci_name *name,
                const struct oci_digest *digest, source_piece_fn take, void *context);
    /* The digests of manifests whose subject is this one. NULL: `references` lists them all. */
    int (*referrers)(struct importer_source *source, struct call *call, const struct oci_name *name,
                     const struct oci_digest *subject, source_text_fn each, void *context);
    void (*close)(struct importer_source *source);
};

/* ---- distribution.c, layout.c, live.c: each takes what follows its scheme ---- */

int source_open_distribution(struct call *call, const char *folder,
                             const struct importer_origin *origin,
                             struct importer_source **ret) MUST_CHECK;
int source_open_layout(struct call *call, const char *folder, const struct importer_origin *origin,
                       struct importer_source **ret) MUST_CHECK;
int source_open_live(struct call *call, const char *url, const struct importer_origin *origin,
                     struct importer_source **ret) MUST_CHECK;

/* What a link file of distribution's storage holds: a digest, and perhaps a line feed.
 * Errors: CORRUPT; the text names no path. */
int source_link_parse(struct str text, struct oci_digest *ret, struct err *err) MUST_CHECK;
/* The tag that an entry of a layout's index stands for: its ref.name, or, where that is a whole
 * reference, what follows the last ':'. Borrowed; p NULL: it cannot be a tag. */
struct str source_layout_tag(struct str ref_name);

/* ---- source.c ---- */

/* Computes the digest of `content` and compares it with the one that was asked for, if any.
 * Errors: CORRUPT. */
int source_check_manifest(struct call *call, const struct oci_digest *wanted, struct str content,
                          struct oci_digest *ret) MUST_CHECK;

/* ---- json.c: what sources say in JSON ---- */

#define SOURCE_JSON_VALUES_MAX 1000000

/* Parses an object of at most so many values; `what` names it in error texts, which hold nothing of
 * the text itself. ret: owned. Errors: INVALID. */
int source_json_read(struct str text, const char *what, json_t **ret, struct err *err) MUST_CHECK;
/* The text of a field, borrowed from `object`; empty when it is absent or no string. */
struct str source_json_text(const json_t *object, const char *name);

#endif
