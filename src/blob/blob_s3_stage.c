/* Names of objects, and the text that tells where an upload is staged:
 *   1                               the version of this form
 *   tail KEY BYTES                  where there is one
 *   multipart KEY ID                where one was begun, and then for each part in order:
 *   BYTES TAG
 * or, for one that was found by listing, whose parts are not known:
 *   1
 *   listed KEY ID
 * Each line ends with a newline. */
#include "blob/blob_s3_int.h"

#include <stdio.h>
#include <sys/random.h>

static const char hex_digits[] = "0123456789abcdef";

/* ---- Keys ---- */

void bucket_key_make(const char *id, struct bucket_key *ret)
{
    uint32_t suffix;
    require(getrandom(&suffix, sizeof(suffix), 0) == (ssize_t)sizeof(suffix));
    (void)snprintf(ret->text, sizeof(ret->text), BUCKET_UNDER "%.2s/%s.%08x", id, id, suffix);
}

bool bucket_key_parse(struct str text, struct bucket_key *ret)
{
    const size_t fanout_at = sizeof(BUCKET_UNDER) - 1;
    const size_t id_at = fanout_at + 3;
    if (text.n != BUCKET_KEY_BYTES || !str_starts(text, STR(BUCKET_UNDER)))
        return false;
    struct str id = {text.p + id_at, BLOB_UPLOAD_ID_BYTES};
    if (!blob_upload_id_valid(id) || memcmp(text.p + fanout_at, id.p, 2) != 0 ||
        text.p[id_at - 1] != '/' || text.p[id_at + BLOB_UPLOAD_ID_BYTES] != '.')
        return false;
    for (size_t i = BUCKET_KEY_BYTES - BUCKET_SUFFIX_BYTES; i < BUCKET_KEY_BYTES; i++)
        if (memchr(hex_digits, text.p[i], sizeof(hex_digits) - 1) == NULL)
            return false;
    memcpy(ret->text, text.p, BUCKET_KEY_BYTES);
    ret->text[BUCKET_KEY_BYTES] = '\0';
    return true;
}

struct str bucket_key_id(const struct bucket_key *key)
{
    return (struct str){key->text + sizeof(BUCKET_UNDER "ab/") - 1, BLOB_UPLOAD_ID_BYTES};
}

/* ---- Stages ---- */

bool bucket_word_valid(struct str word, size_t max)
{
    if (word.n == 0 || word.n > max)
        return false;
    for (size_t i = 0; i < word.n; i++)
        if (word.p[i] <= ' ' || word.p[i] > '~' || word.p[i] == '"')
            return false;
    return true;
}

void bucket_stage_done(struct bucket_stage *stage)
{
    free(stage->multipart);
    free(stage->etags);
    free(stage->sizes);
    *stage = (struct bucket_stage){0};
}

bool bucket_stage_add(struct bucket_stage *stage, const struct s3_etag *etag, uint64_t size)
{
    size_t n = stage->n_parts;
    if (n == BUCKET_PARTS_MAX || !num_add(stage->parts_bytes, size, &stage->parts_bytes))
        return false;
    if (n % 64 == 0) {
        stage->etags = mem_realloc(stage->etags, (n + 64) * sizeof(*stage->etags));
        stage->sizes = mem_realloc(stage->sizes, (n + 64) * sizeof(*stage->sizes));
    }
    stage->etags[n] = *etag;
    stage->sizes[n] = size;
    stage->n_parts = n + 1;
    return true;
}

struct str bucket_stage_format(const struct bucket_stage *stage, struct arena *arena)
{
    if (stage->multipart == NULL && stage->tail.text[0] == '\0')
        return STR("");
    auto_buf text = BUF_INIT(BUCKET_STAGE_BYTES_MAX);
    buf_add_str(&text, STR("1\n"));
    if (stage->tail.text[0] != '\0')
        buf_printf(&text, "tail %s %llu\n", stage->tail.text,
                   (unsigned long long)stage->tail_bytes);
    if (stage->multipart != NULL)
        buf_printf(&text, "%s %s %s\n", stage->listed ? "listed" : "multipart", stage->key.text,
                   stage->multipart);
    for (size_t i = 0; i < stage->n_parts; i++)
        buf_printf(&text, "%llu %s\n", (unsigned long long)stage->sizes[i], stage->etags[i].text);
    require(!text.overflow);
    return str_dup(arena, buf_str(&text));
}

/* A key in a stage, which is of that upload. */
static bool parse_key(struct str *line, const char *id, struct bucket_key *ret)
{
    struct bucket_key key;
    if (!bucket_key_parse(str_cut(line, ' '), &key) || !str_eq(bucket_key_id(&key), str_from(id)))
        return false;
    *ret = key;
    return true;
}

static bool parse_part(struct str line, struct bucket_stage *stage)
{
    uint64_t size;
    struct s3_etag etag = {0};
    if (!str_eat_u64(&line, INT64_MAX, &size) || size == 0 || !str_starts(line, STR(" ")))
        return false;
    struct str tag = str_from_at(line, 1);
    if (!bucket_word_valid(tag, S3_ETAG_BYTES_MAX))
        return false;
    memcpy(etag.text, tag.p, tag.n);
    return bucket_stage_add(stage, &etag, size);
}

/* What is left of a line after its first word. */
static bool parse_tail(struct str line, const char *id, struct bucket_stage *stage)
{
    return stage->tail.text[0] == '\0' && stage->multipart == NULL &&
           parse_key(&line, id, &stage->tail) &&
           str_eat_u64(&line, INT64_MAX, &stage->tail_bytes) && line.n == 0;
}

static bool parse_multipart(struct str line, const char *id, bool listed,
                            struct bucket_stage *stage)
{
    if (stage->multipart != NULL || !parse_key(&line, id, &stage->key) ||
        !bucket_word_valid(line, BUCKET_MULTIPART_ID_BYTES_MAX))
        return false;
    stage->multipart = mem_zalloc(line.n + 1);
    memcpy(stage->multipart, line.p, line.n);
    stage->listed = listed;
    return true;
}

static bool parse_line(struct str line, const char *id, struct bucket_stage *stage)
{
    if (str_starts(line, STR("tail ")))
        return parse_tail(str_from_at(line, 5), id, stage);
    if (str_starts(line, STR("multipart ")))
        return parse_multipart(str_from_at(line, 10), id, /* listed= */ false, stage);
    if (str_starts(line, STR("listed ")))
        return parse_multipart(str_from_at(line, 7), id, /* listed= */ true, stage);
    return stage->multipart != NULL && !stage->listed && parse_part(line, stage);
}

static bool parse_lines(struct str text, const char *id, struct bucket_stage *stage)
{
    if (text.n > BUCKET_STAGE_BYTES_MAX || !str_ends(text, STR("\n")))
        return false;
    if (!str_eq(str_cut(&text, '\n'), STR("1")))
        return false;
    while (text.n > 0)
        if (!parse_line(str_cut(&text, '\n'), id, stage))
            return false;
    uint64_t all;
    bool something = stage->multipart != NULL || stage->tail.text[0] != '\0';
    return something && num_add(stage->parts_bytes, stage->tail_bytes, &all) && all <= INT64_MAX;
}

int bucket_stage_parse(struct str text, const char *id, struct bucket_stage *ret, struct err *err)
{
    struct bucket_stage stage = {0};
    if (text.n > 0 && !parse_lines(text, id, &stage)) {
        bucket_stage_done(&stage);
        return err_set(err, ERR_CORRUPT,
                       "what is recorded of upload \"%s\" is damaged, or of another version of "
                       "this registry; start the upload again",
                       id);
    }
    *ret = stage;
    return 0;
}
