/* Tokens as Docker's registries hand them out: the challenge names a server ("realm"), that server
 * is asked with the credentials, and its token goes to the registry. */
#include "importer/live_int.h"

#define TOKENS_MAX 256 /* scopes; one is in use for each image in work */
#define TOKEN_BYTES_MAX ((size_t)32 * 1024)
#define SCOPES_MAX 8
#define LIFE_DEFAULT_S 60 /* distribution, "Token Authentication Specification" */
#define LIFE_MAX_S (24 * 3600)
#define MARGIN_MAX_US (5 * CLOCK_SECOND_US) /* before its end, in which a token is not used */

struct token {
    char *scope; /* owned */
    char *value; /* owned; secret */
    struct mono_us until;
};

struct tokens {
    struct fetch *fetch;
    const struct credentials *credentials;
    struct reach reach;
    pthread_mutex_t mutex; /* of what follows */
    struct token list[TOKENS_MAX];
    size_t oldest;
};

bool reach_allows(const struct reach *reach, const struct url *url)
{
    return url->is_https || reach->insecure_http || (reach->loopback && url->is_loopback);
}

struct tokens *tokens_new(struct fetch *fetch, const struct credentials *credentials,
                          struct reach reach)
{
    struct tokens *tokens = mem_zalloc(sizeof(*tokens));
    tokens->fetch = fetch;
    tokens->credentials = credentials;
    tokens->reach = reach;
    require(pthread_mutex_init(&tokens->mutex, NULL) == 0);
    return tokens;
}

static void token_done(struct token *token)
{
    if (token->value != NULL)
        explicit_bzero(token->value, strlen(token->value));
    free(token->value);
    free(token->scope);
    *token = (struct token){0};
}

void tokens_free(struct tokens *tokens)
{
    if (tokens == NULL)
        return;
    for (size_t i = 0; i < TOKENS_MAX; i++)
        token_done(&tokens->list[i]);
    (void)pthread_mutex_destroy(&tokens->mutex);
    free(tokens);
}

static struct token *find(struct tokens *tokens, struct str scope)
{
    for (size_t i = 0; i < TOKENS_MAX; i++)
        if (tokens->list[i].scope != NULL && str_eq(str_from(tokens->list[i].scope), scope))
            return &tokens->list[i];
    return NULL;
}

struct str tokens_find(struct tokens *tokens, struct arena *arena, struct str scope)
{
    auto_lock held = lock_take(&tokens->mutex);
    const struct token *token = find(tokens, scope);
    if (token == NULL || clock_since_us(token->until) >= 0)
        return (struct str){0};
    return str_printf(arena, "Bearer %s", token->value);
}

static void keep(struct tokens *tokens, struct str scope, struct str value, int64_t life_us)
{
    auto_arena arena = {0};
    int64_t margin_us = life_us / 4 < MARGIN_MAX_US ? life_us / 4 : MARGIN_MAX_US;
    struct token token = {
        .scope = mem_strdup(str_z(&arena, scope)),
        .value = mem_strdup(str_z(&arena, value)),
        .until = {clock_mono().us + life_us - margin_us},
    };
    auto_lock held = lock_take(&tokens->mutex);
    struct token *place = find(tokens, scope);
    if (place == NULL) {
        place = &tokens->list[tokens->oldest];
        tokens->oldest = (tokens->oldest + 1) % TOKENS_MAX;
    }
    token_done(place);
    *place = token;
}

/* ---- Asking for one ---- */

static int refused(struct call *call, const struct url *url, unsigned status)
{
    if (status == 401 || status == 403)
        return err_set(&call->err, ERR_UNAUTHENTICATED,
                       "the token server " STR_FMT " refuses, with status %u: check user name and "
                       "password",
                       STR_ARG(url->host), status);
    return err_set(&call->err, status == 429 || status >= 500 ? ERR_BUSY : ERR_INVALID,
                   "the token server " STR_FMT " answered with status %u", STR_ARG(url->host),
                   status);
}

/* RFC 6750, section 2.1: what may be a token. Anything else could not be sent. */
static bool is_token(struct str value)
{
    for (size_t i = 0; i < value.n; i++)
        if (value.p[i] <= ' ' || value.p[i] >= 0x7f)
            return false;
    return value.n > 0 && value.n <= TOKEN_BYTES_MAX;
}

static int read_answer(struct call *call, struct tokens *tokens, const struct fetch_answer *answer,
                       struct str scope)
{
    json_auto_t *json = NULL;
    if (source_json_read(answer->body, "the token server's answer", &json, &call->err) < 0)
        return -1;
    struct str value = source_json_text(json, "token");
    if (value.n == 0)
        value = source_json_text(json, "access_token");
    if (!is_token(value))
        return err_set(&call->err, ERR_INVALID, "the token server's answer holds no token");
    json_int_t life = json_integer_value(json_object_get(json, "expires_in"));
    if (life <= 0)
        life = LIFE_DEFAULT_S;
    keep(tokens, scope, value, (life < LIFE_MAX_S ? life : LIFE_MAX_S) * CLOCK_SECOND_US);
    return 0;
}

static int perform(struct call *call, struct tokens *tokens, const struct url *url,
                   struct fetch_request *request, struct str scope)
{
    struct fetch_answer answer;
    request->url = url->text.p;
    if (fetch_perform(call, tokens->fetch, request, &answer) < 0)
        return -1;
    if (answer.status != 200)
        return refused(call, url, answer.status);
    return read_answer(call, tokens, &answer, scope);
}

/* distribution, "Token Authentication Specification". */
static int ask_by_get(struct call *call, struct tokens *tokens, struct url *url,
                      const struct challenge *challenge, struct str scopes, struct str scope)
{
    const struct credentials *credentials = tokens->credentials;
    if (challenge->service.n > 0 &&
        url_add_parameter(&call->arena, url, "service", challenge->service, &call->err) < 0)
        return -1;
    for (int i = 0; i < SCOPES_MAX && scopes.n > 0; i++)
        if (url_add_parameter(&call->arena, url, "scope", str_cut(&scopes, ' '), &call->err) < 0)
            return -1;
    struct fetch_request request = {.method = "GET"};
    if (credentials->username != NULL) {
        request.headers[request.n_headers++] =
            (struct fetch_header){"Authorization", credentials_basic(&call->arena, credentials).p};
        if (url_add_parameter(&call->arena, url, "account", str_from(credentials->username),
                              &call->err) < 0)
            return -1;
    }
    return perform(call, tokens, url, &request, scope);
}

static void add_form_field(struct buf *form, const char *name, struct str value)
{
    buf_printf(form, "%s%s=", form->n > 0 ? "&" : "", name);
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                     c == '-' || c == '.' || c == '_';
        if (plain)
            buf_add_char(form, c);
        else
            buf_printf(form, "%%%02X", (unsigned char)c);
    }
}

/* distribution, "Docker Registry v2 authentication via OAuth2": with an identity token. */
static int ask_by_post(struct call *call, struct tokens *tokens, const struct url *url,
                       const struct challenge *challenge, struct str scopes, struct str scope)
{
    auto_buf form = BUF_INIT(4 * TOKEN_BYTES_MAX);
    add_form_field(&form, "grant_type", STR("refresh_token"));
    add_form_field(&form, "client_id", STR("holdfast"));
    add_form_field(&form, "service", challenge->service);
    add_form_field(&form, "scope", scopes);
    add_form_field(&form, "refresh_token", str_from(tokens->credentials->identity));
    if (form.overflow)
        return err_set(&call->err, ERR_INVALID, "the identity token is too long");
    struct fetch_request request = {
        .method = "POST",
        .headers = {{"Content-Type", "application/x-www-form-urlencoded"}},
        .n_headers = 1,
        .body = buf_str(&form),
    };
    int done = perform(call, tokens, url, &request, scope);
    explicit_bzero(form.p, form.n);
    return done;
}

int tokens_get(struct call *call, struct tokens *tokens, const struct challenge *challenge,
               struct str scope)
{
    struct url url;
    if (challenge->realm.n == 0)
        return err_set(&call->err, ERR_INVALID,
                       "the registry asks for a token, and does not say where it is to be had");
    if (url_read(&call->arena, NULL, challenge->realm, &url, &call->err) < 0)
        return -1;
    if (!reach_allows(&tokens->reach, &url))
        return err_set(&call->err, ERR_INVALID,
                       "the registry's token server " STR_FMT
                       " is reached by http, which would show "
                       "the password to anyone on the way",
                       STR_ARG(str_first(url.host, 100)));
    struct str scopes = challenge->scope.n > 0 ? challenge->scope : scope;
    return tokens->credentials->identity != NULL
               ? ask_by_post(call, tokens, &url, challenge, scopes, scope)
               : ask_by_get(call, tokens, &url, challenge, scopes, scope);
}
