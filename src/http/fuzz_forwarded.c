/* The Forwarded header: whatever a proxy says, only what may stand in a URL or a log comes out. */
#include "http/http_int.h"

#include <arpa/inet.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool is_address(struct arena *arena, struct str s)
{
    struct in6_addr address;
    const char *text = str_z(arena, s);
    return strlen(text) == s.n &&
           (inet_pton(AF_INET, text, &address) == 1 || inet_pton(AF_INET6, text, &address) == 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_arena arena = {0};
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct origin_said said = origin_read_forwarded(&arena, (struct str){copy, size});
    require(said.scheme == NULL || strcmp(said.scheme, "http") == 0 ||
            strcmp(said.scheme, "https") == 0);
    require(said.client.p == NULL || is_address(&arena, said.client));
    require(said.host.p == NULL || said.host.n > 0);
    for (size_t i = 0; said.host.p != NULL && i < said.host.n; i++) {
        char c = said.host.p[i];
        require(c > ' ' && c < 0x7f && strchr("/?#@\\\"<>%", c) == NULL);
    }
    return 0;
}
