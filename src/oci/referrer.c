#include "oci/oci.h"

#include <inttypes.h>

void oci_referrer_format(struct buf *buf, const struct oci_referrer *referrer)
{
    buf_add_str(buf, STR("{\"mediaType\":"));
    buf_add_json(buf, referrer->media_type);
    buf_add_str(buf, STR(",\"digest\":"));
    buf_add_json(buf, referrer->digest);
    buf_printf(buf, ",\"size\":%" PRIu64, referrer->size);
    if (referrer->artifact_type.n > 0) {
        buf_add_str(buf, STR(",\"artifactType\":"));
        buf_add_json(buf, referrer->artifact_type);
    }
    if (referrer->annotations.n > 0) {
        buf_add_str(buf, STR(",\"annotations\":"));
        buf_add_str(buf, referrer->annotations);
    }
    buf_add_char(buf, '}');
}
