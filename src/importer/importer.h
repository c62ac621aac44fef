/* importer: brings an existing registry into this one: a storage folder of CNCF distribution, an
 * OCI image layout, or a live registry over HTTP.
 *
 * Everything goes in through the registry's verbs, in the order that a client would keep: the blobs
 * and manifests that a manifest names, then the manifest byte for byte, then its tag. So what is
 * there already is not copied again, and an import that broke off goes on when it is run again.
 * A source is outside input: its bytes are bounded, and every digest is computed here.
 * Knows no SQL and no blob store. One importer_run at a time for each source; it starts threads of
 * its own. */
#ifndef HOLDFAST_IMPORTER_H
#define HOLDFAST_IMPORTER_H

#include "base/base.h"

struct registry;

/* ---- Where from ---- */

struct importer_source;

struct importer_origin {
    /* "distribution:FOLDER": the root of distribution's file system driver, layout v2;
     * "oci:FOLDER": an image layout; "https://HOST[:PORT][/REPOSITORY]" or "http://…": a registry,
     * or one repository of it. */
    const char *where;
    const char *repository; /* of "oci:", which has no name of its own; NULL otherwise */
    size_t manifest_bytes_max;

    /* For a live registry. What is sent to whom: credentials to its own host, and to the token
     * server that it names. */
    const char *username;      /* NULL: none */
    const char *password_file; /* its first line; NULL: none */
    const char *password;      /* borrowed; from the environment; NULL: none */
    const char *docker_config; /* a docker config.json with an entry for the host; NULL: none */
    const char *ca_file;       /* PEM; NULL: the system's */
    bool insecure_http;        /* http:// to hosts beyond loopback, too */
};

/* Opens a source, and looks whether it is one. ret: owned.
 * Errors: INVALID (what is wrong with the origin), NOT_FOUND, IO. */
int importer_source_open(struct call *call, const struct importer_origin *origin,
                         struct importer_source **ret) MUST_CHECK;
/* Takes NULL. */
void importer_source_close(struct importer_source *source);

/* ---- What for ---- */

#define IMPORTER_JOBS_MAX 64

struct importer_counts {
    uint64_t repositories; /* looked at */
    uint64_t listed;       /* tags, and manifests that the source lists by digest */
    uint64_t done;         /* of these, skipped ones included */
    uint64_t manifests;    /* copied */
    uint64_t tags;         /* set */
    uint64_t blobs;        /* copied */
    uint64_t bytes;        /* of those blobs, and while they are copied */
    uint64_t linked;       /* blobs that another repository here had already */
    uint64_t present;      /* manifests that were there already, of indexes and referrers too */
    uint64_t present_tags; /* tags that were there already and point to the same */
    uint64_t foreign;      /* layers that the source does not hold either, and need not */
    uint64_t skipped;      /* things that could not be brought, each of which was reported */
};

enum importer_finding {
    IMPORTER_SKIPPED, /* not brought */
    IMPORTER_FOREIGN, /* a layer that is left to where it lives */
};

struct importer_options {
    unsigned jobs;                   /* images at a time, 1 to IMPORTER_JOBS_MAX */
    const char *const *repositories; /* globs, as fnmatch(3) knows them; "*" matches "/", too */
    size_t n_repositories;           /* 0: all */
    const char *prefix;              /* put before each name, with "/" between; NULL: none */
    bool overwrite;                  /* tags that point elsewhere here are moved */
    bool dry_run;                    /* nothing is written; the counts are what would be */
    void *context;
    /* Each is called by one thread at a time, and must not call back. */
    void (*found)(void *context, enum importer_finding finding, const char *text);
    void (*progress)(void *context, const struct importer_counts *counts);
};

/* Brings everything that the options choose. What cannot be brought is reported and left out, and
 * the rest goes on. `registry` NULL, in a dry run: one in which there is nothing yet.
 * Errors, after which nothing more is begun: what the registry fails with, BUSY, IO, FULL …; a
 * source that does not answer any more, or whose list of repositories cannot be had. ret_counts is
 * written in any case. */
int importer_run(struct call *call, struct importer_source *source, struct registry *registry,
                 const struct importer_options *options,
                 struct importer_counts *ret_counts) MUST_CHECK;

#endif
