/* Range, and lists of entity tags. The first byte chooses the size of the content. */
#include "http/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_range(struct str header, uint64_t size)
{
    uint64_t first = UINT64_MAX;
    uint64_t last = UINT64_MAX;
    if (http_range_parse(header, size, &first, &last) == HTTP_RANGE_PART)
        require(first <= last && last < size);
    else
        require(first == UINT64_MAX && last == UINT64_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint64_t sizes[] = {0, 1, 2048, 10000, UINT64_C(1) << 40, INT64_MAX, UINT64_MAX};
    if (size == 0)
        return 0;
    auto_mem char *copy = mem_alloc(size); /* exactly as long: reading beyond is seen */
    memcpy(copy, data + 1, size - 1);
    struct str text = {copy, size - 1};
    check_range(text, sizes[data[0] % ARRAY_SIZE(sizes)]);

    bool there = http_etag_matches(text, STR("sha256:ab"), /* exists= */ true);
    bool absent = http_etag_matches(text, STR("sha256:ab"), /* exists= */ false);
    require(!absent);
    require(!there || memmem(copy, text.n, "sha256:ab", 9) != NULL ||
            str_eq(str_trim(text), STR("*")));
    return 0;
}
