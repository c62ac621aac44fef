/* Keys and stages, which come from rows and lists. */
#include "blob/blob_s3_int.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_same(const struct bucket_stage *a, const struct bucket_stage *b)
{
    require(strcmp(a->key.text, b->key.text) == 0);
    require((a->multipart == NULL) == (b->multipart == NULL));
    require(a->multipart == NULL || strcmp(a->multipart, b->multipart) == 0);
    require(a->listed == b->listed && a->n_parts == b->n_parts);
    require(a->parts_bytes == b->parts_bytes && a->tail_bytes == b->tail_bytes);
    require(strcmp(a->tail.text, b->tail.text) == 0);
    for (size_t i = 0; i < a->n_parts; i++)
        require(a->sizes[i] == b->sizes[i] && strcmp(a->etags[i].text, b->etags[i].text) == 0);
}

/* What is understood can be written, and is understood to be the same then. */
static void check_stage(struct str text)
{
    static const char id[] = "00000000-0000-4000-8000-000000000000";
    struct err err;
    struct bucket_stage stage;
    if (bucket_stage_parse(text, id, &stage, &err) < 0) {
        require(err.kind == ERR_CORRUPT);
        return;
    }
    const struct bucket_key *keys[] = {&stage.key, &stage.tail};
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        require(keys[i]->text[0] == '\0' || str_eq(bucket_key_id(keys[i]), str_from(id)));
    require(stage.n_parts <= BUCKET_PARTS_MAX);
    auto_arena arena = {0};
    struct bucket_stage again;
    require(bucket_stage_parse(bucket_stage_format(&stage, &arena), id, &again, &err) == 0);
    check_same(&stage, &again);
    bucket_stage_done(&stage);
    bucket_stage_done(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    auto_mem char *copy = mem_alloc(size); /* exactly as long: reading beyond is seen */
    if (size > 0)
        memcpy(copy, data, size);
    struct str text = {copy, size};
    struct bucket_key key;
    if (bucket_key_parse(text, &key))
        require(bucket_key_is(&key, text) && blob_upload_id_valid(bucket_key_id(&key)));
    check_stage(text);
    return 0;
}
