#include "fetch/fetch_int.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#define RECEIVE_BYTES 131072L /* what one read from the socket takes */
#define SEND_BYTES 262144L
#define SAY_FAILED "another server could not be reached"

int head_add(struct head *head, struct str line, struct err *err)
{
    if (head->complete)
        return 0;
    if (str_starts(line, STR("HTTP/"))) { /* also after a 100 (Continue) */
        buf_done(&head->lines);
        head->n_lines = 0;
        (void)str_cut(&line, ' ');
        uint64_t status = 0;
        (void)str_eat_u64(&line, 999, &status);
        head->status = (unsigned)status;
        return 0;
    }
    if (str_eq(line, STR("\r\n")) || str_eq(line, STR("\n"))) {
        head->complete = head->status >= 200;
        return 0;
    }
    buf_add_str(&head->lines, line);
    head->n_lines++;
    if (head->lines.overflow || head->n_lines > HEAD_LINES_MAX)
        return err_set(err, ERR_TOO_LARGE,
                       "another server's answer has more headers than %d lines or %zu bytes",
                       HEAD_LINES_MAX, HEAD_BYTES_MAX);
    return 0;
}

int url_origin(const char *url, struct str *ret, struct err *err)
{
    struct str rest = str_from(url);
    for (size_t i = 0; i < rest.n; i++)
        if ((unsigned char)rest.p[i] <= ' ' || rest.p[i] == 0x7f)
            return err_set(err, ERR_INVALID, "a URL contains a space or a control character");

    size_t scheme = strlen("https://");
    if (!str_eq_nocase(str_first(rest, scheme), STR("https://")))
        scheme = str_eq_nocase(str_first(rest, strlen("http://")), STR("http://"))
                     ? strlen("http://")
                     : 0;
    struct str authority = {url + scheme, strcspn(url + scheme, "/?#\\")};
    if (scheme == 0 || authority.n == 0)
        return err_set(err, ERR_INVALID,
                       "a URL does not begin with http:// or https:// and a host");
    if (str_find(authority, '@') < authority.n)
        return err_set(err, ERR_INVALID, "a URL contains a user name");
    *ret = str_first(rest, scheme + authority.n);
    return 0;
}

/* Services on this machine and this link, such as those that hand out credentials. */
static bool is_near(struct str origin)
{
    struct str host = str_from_at(origin, str_find(origin, '/') + 2);
    if (str_starts(host, STR("[")))
        return str_starts(host, STR("[::1]")) || str_starts(host, STR("[fe80:")) ||
               str_starts(host, STR("[fd00:ec2:"));
    host = str_first(host, str_find(host, ':'));
    return str_starts(host, STR("127.")) || str_starts(host, STR("169.254.")) ||
           str_eq_nocase(host, STR("localhost")) || str_ends(host, STR(".localhost"));
}

static bool is_token(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
                   s.p[i]) == NULL)
            return false;
    return s.n > 0;
}

static bool is_value(struct str s)
{
    for (size_t i = 0; i < s.n; i++)
        if (((unsigned char)s.p[i] < ' ' && s.p[i] != '\t') || s.p[i] == 0x7f)
            return false;
    return true;
}

static void list_add(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl_slist_append(*list, line);
    require(longer != NULL);
    *list = longer;
}

static int headers_make(const struct fetch_request *request, struct curl_slist **list,
                        struct err *err)
{
    bool typed = false;
    require(request->n_headers <= FETCH_HEADERS_MAX);
    for (size_t i = 0; i < request->n_headers; i++) {
        struct str name = str_from(request->headers[i].name);
        struct str value = str_from(request->headers[i].value);
        if (!is_token(name) || !is_value(value))
            return err_set(err, ERR_INVALID, "header \"" STR_FMT "\" of a request cannot be sent",
                           STR_ARG(str_first(name, 60)));
        auto_buf line = BUF_INIT(HEAD_BYTES_MAX);
        buf_add_str(&line, name);
        buf_add_str(&line, value.n > 0 ? STR(": ") : STR(";")); /* "Name;" sends it empty */
        buf_add_str(&line, value);
        if (line.overflow)
            return err_set(err, ERR_INVALID, "header \"" STR_FMT "\" of a request is too long",
                           STR_ARG(str_first(name, 60)));
        list_add(list, line.p);
        typed = typed || str_eq_nocase(name, STR("Content-Type"));
    }
    list_add(list, "Expect:"); /* would cost a round trip with each large body */
    if (!typed)
        list_add(list, "Content-Type:");
    return 0;
}

static void set_method(CURL *easy, const struct fetch_request *request)
{
    if (request->body.p != NULL) {
        curl_easy_setopt(easy, CURLOPT_POST, 1L);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body.p);
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.n);
    }
    if (strcmp(request->method, "HEAD") == 0)
        curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
    else if (request->body.p != NULL || strcmp(request->method, "GET") != 0)
        curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
}

static long milliseconds(int64_t us)
{
    return us < 1000 ? 1L : (long)(us / 1000);
}

int transfer_setup(CURL *easy, const struct fetch *fetch, const struct fetch_request *request,
                   struct curl_slist **ret_headers, struct err *err)
{
    struct str origin;
    if (url_origin(request->url, &origin, err) < 0)
        return -1;
    struct curl_slist *headers = NULL;
    if (headers_make(request, &headers, err) < 0) {
        curl_slist_free_all(headers);
        return -1;
    }

    curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, fetch->options.user_agent);
    set_method(easy, request);

    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (fetch->options.ca_file != NULL) {
        curl_easy_setopt(easy, CURLOPT_CAINFO, fetch->options.ca_file);
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    }
    if (is_near(origin))
        curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, milliseconds(fetch->options.connect_us));
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, RECEIVE_BYTES);
    curl_easy_setopt(easy, CURLOPT_UPLOAD_BUFFERSIZE, SEND_BYTES);
    *ret_headers = headers;
    return 0;
}

void transfer_acknowledge(int fd)
{
    const int on = 1;
    if (fd >= 0)
        (void)setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on)); /* a wish */
}

int transfer_failed(CURLcode code, const char *text, struct str origin, struct err *err)
{
    enum err_kind kind = code == CURLE_OPERATION_TIMEDOUT ? ERR_TIMEOUT
                         : code == CURLE_URL_MALFORMAT    ? ERR_INVALID
                                                          : ERR_IO;
    (void)err_set(err, kind, "%s",
                  kind == ERR_INVALID ? "a URL is not one"
                  : kind == ERR_IO    ? SAY_FAILED
                                      : "another server does not answer");
    return err_why(err, STR_FMT ": %s", STR_ARG(origin),
                   text[0] != '\0' ? text : curl_easy_strerror(code));
}

bool transfer_given_up(const struct fetch *fetch)
{
    return clock_mono().us >= atomic_load(&fetch->give_up_us);
}

int transfer_silent(const struct fetch *fetch, struct str origin, struct err *err)
{
    if (transfer_given_up(fetch)) {
        (void)err_set(err, ERR_TIMEOUT, "another server is not waited for any more");
        return err_why(err, STR_FMT ": this process is about to end", STR_ARG(origin));
    }
    (void)err_set(err, ERR_TIMEOUT, "another server does not answer");
    return err_why(err, STR_FMT ": nothing moved for %lld ms", STR_ARG(origin),
                   (long long)(fetch->options.silence_us / 1000));
}
