/* Answers of the store: any document, an error, a page of a list; and the encoding of keys. */
#include "s3/s3_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int see(void *context, struct str path, struct str text, struct err *err)
{
    (void)err;
    require(path.n > 0 && path.n <= 256 && text.n <= 16384);
    ++*(size_t *)context;
    return 0;
}

static void check_error(struct str xml)
{
    struct s3_error error;
    if (!s3_error_parse(xml, &error))
        return;
    require(error.code[0] != '\0');
    require(strnlen(error.code, sizeof(error.code)) < sizeof(error.code));
    require(strnlen(error.message, sizeof(error.message)) < sizeof(error.message));
    require(strchr(error.message, '\n') == NULL);
}

static void check_page(struct str xml)
{
    auto_arena arena = {0};
    struct err err = {0};
    struct s3_page page = {.arena = &arena};
    if (s3_page_parse(&page, xml, &err) < 0) {
        require(err.kind == ERR_IO);
        return;
    }
    require(page.is_list && page.n <= xml.n);
    for (size_t i = 0; i < page.n; i++)
        require(page.entries[i].key.n <= xml.n && page.entries[i].size <= INT64_MAX);
}

/* What is decoded and encoded again is the same key, however it was written. */
static void check_encoding(struct str text)
{
    auto_arena arena = {0};
    struct str decoded;
    if (!s3_decode(&arena, text, &decoded))
        return;
    auto_buf encoded = BUF_INIT(3 * text.n);
    s3_encode(&encoded, decoded, /* keep_slashes= */ false);
    struct str again;
    require(s3_decode(&arena, buf_str(&encoded), &again) && str_eq(again, decoded));
    auto_buf escaped = BUF_INIT(8 * text.n);
    if (s3_xml_add(&escaped, decoded))
        require(escaped.n >= decoded.n);
    require(!encoded.overflow && !escaped.overflow);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_mem char *copy = mem_alloc(size > 0 ? size : 1); /* exactly as long */
    if (size > 0)
        memcpy(copy, data, size);
    struct str xml = {copy, size};
    struct err err = {0};
    size_t elements = 0;
    if (s3_xml_parse(xml, see, &elements, &err) == 0)
        require(elements > 0);
    else
        require(err.kind == ERR_IO);
    check_error(xml);
    check_page(xml);
    check_encoding(xml);
    struct wall_us t;
    (void)s3_time_parse(xml, &t);
    (void)s3_http_date_parse(xml, &t);
    return 0;
}
