/* WWW-Authenticate: whatever a registry sends, reading ends, and what comes out lies within it. */
#include "importer/live_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_arena arena = {0};
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct str header = {copy, size};
    struct challenge challenge;
    for (size_t before = header.n + 1; challenge_next(&arena, &header, &challenge);) {
        require(header.n < before); /* each takes something away */
        before = header.n;
        require(challenge.scheme.n > 0 && challenge.scheme.p >= copy &&
                challenge.scheme.p + challenge.scheme.n <= copy + size);
        require(challenge.realm.n + challenge.service.n + challenge.scope.n <= size);
    }
    /* The same bytes as the head of an answer. */
    struct str lines = {copy, size};
    struct str value;
    while (header_next(&lines, STR("WWW-Authenticate"), &value))
        require(value.n <= size && memchr(value.p, '\n', value.n) == NULL);
    return 0;
}
