#include "s3/s3_int.h"

#include <expat.h>

#define DEPTH_MAX 16
#define PATH_BYTES_MAX 256
#define TEXT_BYTES_MAX 16384

struct parse {
    XML_Parser parser;
    s3_xml_element *element;
    void *context;
    struct err *err;
    char path[PATH_BYTES_MAX];
    size_t ends[DEPTH_MAX]; /* of the path at each depth */
    size_t depth;
    struct buf text;
    bool failed;
};

static void stop(struct parse *parse)
{
    parse->failed = true;
    (void)XML_StopParser(parse->parser, XML_FALSE);
}

static void refuse(struct parse *parse, const char *what)
{
    if (parse->failed)
        return; /* more events may come after the stop */
    (void)err_set(parse->err, ERR_IO, "an answer of the object store is not understood");
    (void)err_why(parse->err, "its XML %s", what);
    stop(parse);
}

static void on_start(void *context, const XML_Char *name, const XML_Char **attributes)
{
    (void)attributes;
    struct parse *parse = context;
    size_t at = parse->depth > 0 ? parse->ends[parse->depth - 1] : 0;
    size_t n = strlen(name);
    if (parse->depth == DEPTH_MAX || n + 1 > sizeof(parse->path) - at) {
        refuse(parse, "is nested too deeply");
        return;
    }
    if (at > 0)
        parse->path[at++] = '/';
    memcpy(parse->path + at, name, n);
    parse->ends[parse->depth++] = at + n;
    buf_done(&parse->text);
}

static void on_end(void *context, const XML_Char *name)
{
    (void)name;
    struct parse *parse = context;
    if (parse->failed || parse->depth == 0)
        return;
    struct str path = {parse->path, parse->ends[--parse->depth]};
    if (parse->element(parse->context, path, buf_str(&parse->text), parse->err) < 0)
        stop(parse);
    buf_done(&parse->text);
}

static void on_text(void *context, const XML_Char *p, int n)
{
    struct parse *parse = context;
    buf_add(&parse->text, p, (size_t)n);
    if (parse->text.overflow)
        refuse(parse, "holds a text that is too long");
}

/* Nothing that the store sends has one, and entities would be declared in it. */
static void on_doctype(void *context, const XML_Char *name, const XML_Char *system_id,
                       const XML_Char *public_id, int internal)
{
    (void)name;
    (void)system_id;
    (void)public_id;
    (void)internal;
    refuse(context, "declares a document type");
}

int s3_xml_parse(struct str xml, s3_xml_element *element, void *context, struct err *err)
{
    struct parse parse = {
        .parser = XML_ParserCreate(NULL),
        .element = element,
        .context = context,
        .err = err,
        .text = BUF_INIT(TEXT_BYTES_MAX),
    };
    require(parse.parser != NULL);
    XML_SetUserData(parse.parser, &parse);
    XML_SetElementHandler(parse.parser, on_start, on_end);
    XML_SetCharacterDataHandler(parse.parser, on_text);
    XML_SetStartDoctypeDeclHandler(parse.parser, on_doctype);
    enum XML_Status status = XML_STATUS_ERROR;
    if (xml.n <= INT32_MAX / 2)
        status = XML_Parse(parse.parser, xml.n > 0 ? xml.p : "", (int)xml.n, /* isFinal= */ 1);
    if (status != XML_STATUS_OK && !parse.failed)
        refuse(&parse, XML_ErrorString(XML_GetErrorCode(parse.parser)));
    XML_ParserFree(parse.parser);
    buf_done(&parse.text);
    return parse.failed ? -1 : 0;
}

bool s3_xml_add(struct buf *buf, struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c < ' ' && c != '\t' && c != '\n' && c != '\r')
            return false;
        if (c == '&' || c == '<' || c == '>' || c == '"' || c < ' ')
            buf_printf(buf, "&#%d;", c);
        else
            buf_add_char(buf, (char)c);
    }
    return true;
}

/* ---- Errors ---- */

static void copy(char *to, size_t size, struct str from)
{
    size_t n = from.n < size - 1 ? from.n : size - 1;
    for (size_t i = 0; i < n; i++) /* one line of the log */
        to[i] = (unsigned char)from.p[i] < ' ' ? ' ' : from.p[i];
    to[n] = '\0';
}

static int error_element(void *context, struct str path, struct str text, struct err *err)
{
    (void)err;
    struct s3_error *error = context;
    /* S3 answers <Error>, STS <ErrorResponse><Error>. */
    if (str_starts(path, STR("ErrorResponse/")))
        path = str_from_at(path, strlen("ErrorResponse/"));
    if (str_eq(path, STR("Error/Code")))
        copy(error->code, sizeof(error->code), text);
    else if (str_eq(path, STR("Error/Message")))
        copy(error->message, sizeof(error->message), text);
    else if (str_eq(path, STR("Error/RequestId")) || str_eq(path, STR("RequestId")))
        copy(error->request_id, sizeof(error->request_id), text);
    else if (str_eq(path, STR("Error/Region")))
        copy(error->region, sizeof(error->region), text);
    return 0;
}

bool s3_error_parse(struct str xml, struct s3_error *ret)
{
    struct s3_error error = {0};
    struct err err;
    if (s3_xml_parse(xml, error_element, &error, &err) < 0 || error.code[0] == '\0')
        return false;
    *ret = error;
    return true;
}
