/* Shared inside meta. */
#ifndef HOLDFAST_META_INT_H
#define HOLDFAST_META_INT_H

#include "meta/meta.h"

/* Gives the first column of each row to `each`. */
int meta_each_text(struct call *call, struct db_stmt *stmt, meta_text_fn each,
                   void *context) MUST_CHECK;
/* Of a look-up whose row says that the repository is there, and whose first column is NULL when it
 * has not what was looked up. */
enum meta_found meta_found_in(struct db_stmt *stmt, bool row);
/* Binds the digest's text; `text` must live until db_done. */
void meta_bind_digest(struct db_stmt *stmt, int parameter, const struct oci_digest *digest,
                      char text[OCI_DIGEST_TEXT_MAX + 1]);
#endif
