/* Link: the target lies within the header, without its brackets. And Retry-After: a time or none.
 */
#include "importer/live_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1);
    if (size > 0)
        memcpy(copy, data, size);
    struct str header = {copy, size};
    struct str target = link_next(header);
    if (target.p != NULL) {
        require(target.p > copy && target.p + target.n < copy + size);
        require(target.p[-1] == '<' && target.p[target.n] == '>');
        auto_arena arena = {0};
        struct url base;
        struct url url;
        struct err err;
        require(url_read(&arena, NULL, STR("https://registry.example/v2/"), &base, &err) == 0);
        if (url_read(&arena, &base, target, &url, &err) == 0) {
            require(str_starts(url.text, STR("https://")) || str_starts(url.text, STR("http://")));
            require(url.path.n > 0 && url.path.p[0] == '/');
        }
    }
    require(retry_after_us(header, (struct wall_us){0}) >= -1);
    return 0;
}
