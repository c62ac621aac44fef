/* api: the dialect of HTTP that clients speak: the OCI distribution API and the operator's pages.
 *
 * routes.c is the page to read first: one row for each operation. Handlers translate a request into
 * a verb of the registry and its result into an answer; they return errors, and error.c alone
 * writes them. Knows no SQL and no file.
 * Threads: those of http. */
#ifndef HOLDFAST_API_H
#define HOLDFAST_API_H

#include "config/config.h"
#include "http/http.h"
#include "metrics/metrics.h"
#include "registry/registry.h"

struct api;

/* All are borrowed until api_free. ret: owned. */
struct api *api_new(struct registry *registry, const struct config *config,
                    struct metrics *metrics);
/* Takes NULL. */
void api_free(struct api *api);
/* borrowed until api_free */
const struct http_app *api_http_app(const struct api *api);
/* Names of the routes, in the order in which metrics count them. static */
const char *const *api_route_names(size_t *ret_n);

#endif
