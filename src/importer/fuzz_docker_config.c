/* A docker config.json: user names and passwords come out as C strings, or nothing does. */
#include "importer/live_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct credentials credentials = {0};
    struct err err;
    if (credentials_from_docker((struct str){copy, size}, STR("registry.example"), &credentials,
                                &err) == 0) {
        require((credentials.username == NULL) == (credentials.password == NULL));
    } else {
        require(credentials.username == NULL && credentials.identity == NULL);
        require(err.kind == ERR_INVALID);
    }
    credentials_done(&credentials);
    return 0;
}
