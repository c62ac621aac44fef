#include "importer/source_int.h"

int source_check_manifest(struct call *call, const struct oci_digest *wanted, struct str content,
                          struct oci_digest *ret)
{
    enum hash_algorithm algorithm = wanted != NULL ? wanted->algorithm : HASH_SHA256;
    struct oci_digest digest = oci_digest_of(algorithm, content);
    if (wanted != NULL && !oci_digest_eq(wanted, &digest))
        return err_set(&call->err, ERR_CORRUPT,
                       "the source gives other bytes: they are " STR_FMT ", and should be " STR_FMT,
                       STR_ARG(oci_digest_text(&call->arena, &digest)),
                       STR_ARG(oci_digest_text(&call->arena, wanted)));
    *ret = digest;
    return 0;
}

int importer_source_open(struct call *call, const struct importer_origin *origin,
                         struct importer_source **ret)
{
    static const struct {
        const char *scheme;
        bool is_whole; /* the source is opened by the text with its scheme */
        int (*open)(struct call *call, const char *where, const struct importer_origin *origin,
                    struct importer_source **ret);
    } kinds[] = {
        {"distribution:", false, source_open_distribution},
        {"oci:", false, source_open_layout},
        {"https://", true, source_open_live},
        {"http://", true, source_open_live},
    };
    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
        size_t n = strlen(kinds[i].scheme);
        if (strncmp(origin->where, kinds[i].scheme, n) == 0)
            return kinds[i].open(call, origin->where + (kinds[i].is_whole ? 0 : n), origin, ret);
    }
    return err_set(&call->err, ERR_INVALID,
                   "source \"%s\" is none of distribution:FOLDER, oci:FOLDER and "
                   "https://HOST[/REPOSITORY]",
                   origin->where);
}

void importer_source_close(struct importer_source *source)
{
    if (source != NULL)
        source->kind->close(source);
}
