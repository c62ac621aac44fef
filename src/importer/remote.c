#include "importer/live_int.h"

#define HOPS_MAX 5
#define TRIES_MAX 6                                /* of a request that fails */
#define TRIES_ASKED_MAX 10                         /* of one that the server asks to repeat */
#define PAUSE_FIRST_US (CLOCK_SECOND_US / 4)       /* doubled with each try */
#define PAUSE_ASKED_MAX_US (300 * CLOCK_SECOND_US) /* who asks for more is left alone */
#define PAUSE_STEP_US (CLOCK_SECOND_US / 10)
#define CONNECT_US (15 * CLOCK_SECOND_US)
#define SILENCE_US (60 * CLOCK_SECOND_US)
#define SLOWEST_BYTES 1024 /* a second, on the average; asked for after the time above */

struct remote {
    struct fetch *fetch;                   /* owned */
    struct tokens *tokens;                 /* owned */
    const struct credentials *credentials; /* borrowed */
    struct reach reach;
    char *origin;              /* owned: what credentials may be sent to */
    atomic_bool basic;         /* it asked for user name and password */
    atomic_bool *stopping;     /* borrowed */
    pthread_mutex_t mutex;     /* of what follows */
    struct mono_us not_before; /* it asked all of us to wait */
};

int remote_new(const struct importer_origin *origin, const struct url *base,
               const struct credentials *credentials, atomic_bool *stopping, struct remote **ret,
               struct err *err)
{
    const struct reach reach = {origin->insecure_http, base->is_loopback};
    const struct fetch_options options = {
        .ca_file = origin->ca_file,
        .user_agent = "holdfast/" HOLDFAST_VERSION,
        .connections = IMPORTER_JOBS_MAX,
        .connect_us = CONNECT_US,
        .silence_us = SILENCE_US,
    };
    if (!reach_allows(&reach, base))
        return err_set(err, ERR_INVALID,
                       "registry " STR_FMT " is not on this machine and would be asked by http, "
                       "which everyone on the way can read and change; use https, or say that "
                       "you want it",
                       STR_ARG(str_first(base->host, 100)));
    struct fetch *fetch;
    if (fetch_new(&options, &fetch, err) < 0)
        return -1;
    struct remote *remote = mem_zalloc(sizeof(*remote));
    remote->fetch = fetch;
    remote->tokens = tokens_new(fetch, credentials, reach);
    remote->credentials = credentials;
    remote->reach = reach;
    remote->origin = mem_strdup(base->origin.p);
    remote->stopping = stopping;
    require(pthread_mutex_init(&remote->mutex, NULL) == 0);
    *ret = remote;
    return 0;
}

void remote_free(struct remote *remote)
{
    if (remote == NULL)
        return;
    tokens_free(remote->tokens);
    fetch_free(remote->fetch);
    (void)pthread_mutex_destroy(&remote->mutex);
    free(remote->origin);
    free(remote);
}

/* ---- One request ---- */

/* A body on its way. A `take` that failed must not be called again by another try. */
struct taking {
    const struct remote_request *request;
    bool failed;
    struct mono_us began;
    int64_t ours_us; /* spent in `take` */
    uint64_t received;
};

/* Who sends a byte now and then is never silent, and would hold us for ever. */
static int check_pace(const struct taking *taking, struct err *err)
{
    int64_t theirs_us = clock_since_us(taking->began) - taking->ours_us;
    if (theirs_us < SILENCE_US ||
        taking->received / SLOWEST_BYTES >= (uint64_t)(theirs_us / CLOCK_SECOND_US))
        return 0;
    return err_set(err, ERR_TIMEOUT, STR_FMT " sends less than %d bytes a second",
                   STR_ARG(str_first(taking->request->url.host, 100)), SLOWEST_BYTES);
}

static int take_piece(void *context, struct str piece, struct err *err)
{
    struct taking *taking = context;
    taking->received += piece.n;
    if (check_pace(taking, err) < 0)
        return -1;
    struct mono_us before = clock_mono();
    taking->failed = taking->request->take(taking->request->context, piece, err) < 0;
    taking->ours_us += clock_since_us(before);
    return taking->failed ? -1 : 0;
}

static int send_once(struct call *call, struct remote *remote, struct taking *taking,
                     const struct url *url, struct str authorization, struct fetch_answer *ret)
{
    const struct remote_request *request = taking->request;
    struct fetch_request sent = {
        .method = request->method,
        .url = url->text.p,
        .take = request->take != NULL ? take_piece : NULL,
        .context = taking,
    };
    if (request->accept != NULL)
        sent.headers[sent.n_headers++] = (struct fetch_header){"Accept", request->accept};
    if (authorization.p != NULL)
        sent.headers[sent.n_headers++] = (struct fetch_header){"Authorization", authorization.p};
    if (request->restart != NULL)
        request->restart(request->context);
    *taking = (struct taking){.request = request, .began = clock_mono()};
    return fetch_perform(call, remote->fetch, &sent, ret);
}

/* ---- Authentication ---- */

static struct str authorization_for(struct call *call, struct remote *remote, struct str scope)
{
    if (atomic_load(&remote->basic))
        return credentials_basic(&call->arena, remote->credentials);
    return tokens_find(remote->tokens, &call->arena, scope);
}

/* Finds the challenge of a scheme among all that the answer holds. */
static bool find_challenge(struct call *call, const struct fetch_answer *answer, struct str scheme,
                           struct challenge *ret)
{
    struct str lines = answer->headers;
    struct str header;
    while (header_next(&lines, STR("WWW-Authenticate"), &header))
        while (challenge_next(&call->arena, &header, ret))
            if (str_eq_nocase(ret->scheme, scheme))
                return true;
    return false;
}

/* Gets ready what the registry asks for, so that the request can be sent again. */
static int answer_challenge(struct call *call, struct remote *remote,
                            const struct remote_request *request, const struct fetch_answer *answer)
{
    struct challenge challenge;
    if (find_challenge(call, answer, STR("Bearer"), &challenge))
        return tokens_get(call, remote->tokens, &challenge, request->scope);
    if (!find_challenge(call, answer, STR("Basic"), &challenge))
        return err_set(&call->err, ERR_UNAUTHENTICATED,
                       "registry " STR_FMT " asks who we are, and not in a way that is known here",
                       STR_ARG(request->url.host));
    if (remote->credentials->username == NULL)
        return err_set(&call->err, ERR_UNAUTHENTICATED,
                       "registry " STR_FMT " asks for a user name and password",
                       STR_ARG(request->url.host));
    atomic_store(&remote->basic, true);
    return 0;
}

/* Credentials and tokens go to the registry's own origin, and nowhere else. */
static int exchange(struct call *call, struct remote *remote, struct taking *taking,
                    const struct url *url, struct fetch_answer *ret)
{
    const struct remote_request *request = taking->request;
    if (!str_eq(url->origin, str_from(remote->origin)))
        return send_once(call, remote, taking, url, (struct str){0}, ret);
    struct str authorization = authorization_for(call, remote, request->scope);
    if (send_once(call, remote, taking, url, authorization, ret) < 0)
        return -1;
    bool was_basic = authorization.p != NULL && str_starts(authorization, STR("Basic "));
    if (ret->status != 401 || was_basic)
        return 0;
    if (answer_challenge(call, remote, request, ret) < 0)
        return -1;
    return send_once(call, remote, taking, url, authorization_for(call, remote, request->scope),
                     ret);
}

/* ---- Redirects ---- */

static bool is_redirect(unsigned status)
{
    return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

static int next_hop(struct call *call, const struct remote *remote,
                    const struct fetch_answer *answer, struct url *url)
{
    struct str location = fetch_header(answer, "Location");
    struct url next;
    if (location.p == NULL)
        return err_set(&call->err, ERR_INVALID,
                       STR_FMT " answered with status %u and does not say where to go",
                       STR_ARG(url->host), answer->status);
    if (url_read(&call->arena, url, location, &next, &call->err) < 0)
        return -1;
    if (!reach_allows(&remote->reach, &next))
        return err_set(&call->err, ERR_INVALID,
                       STR_FMT " sends us on to " STR_FMT " by http, and https is needed",
                       STR_ARG(str_first(url->host, 100)), STR_ARG(str_first(next.host, 100)));
    *url = next;
    return 0;
}

static int follow(struct call *call, struct remote *remote, struct taking *taking, struct url *url,
                  struct fetch_answer *ret)
{
    for (int hop = 0; hop <= HOPS_MAX; hop++) {
        if (exchange(call, remote, taking, url, ret) < 0)
            return -1;
        if (!is_redirect(ret->status))
            return 0;
        if (next_hop(call, remote, ret, url) < 0)
            return -1;
    }
    return err_set(&call->err, ERR_INVALID, STR_FMT " redirects more than %d times",
                   STR_ARG(taking->request->url.host), HOPS_MAX);
}

/* ---- What an answer means ---- */

/* What the registry says of its refusal, in its own words; empty when it does not. arena */
static struct str reason_of(struct call *call, const struct fetch_answer *answer)
{
    json_auto_t *json = NULL;
    struct err ignored;
    if (source_json_read(answer->body, "an answer", &json, &ignored) < 0)
        return STR("");
    const json_t *first = json_array_get(json_object_get(json, "errors"), 0);
    struct str message = str_first(source_json_text(first, "message"), 120);
    return message.n > 0 ? str_printf(&call->arena, ": " STR_FMT, STR_ARG(message)) : STR("");
}

static int judge(struct call *call, const struct url *url, const struct fetch_answer *answer)
{
    unsigned status = answer->status;
    if (status >= 200 && status < 300)
        return 0;
    enum err_kind kind = status == 404                    ? ERR_NOT_FOUND
                         : status == 401                  ? ERR_UNAUTHENTICATED
                         : status == 403                  ? ERR_DENIED
                         : status == 429 || status >= 500 ? ERR_BUSY
                                                          : ERR_INVALID;
    struct str reason = reason_of(call, answer);
    return err_set(&call->err, kind, STR_FMT " answered %u to \"" STR_FMT "\"" STR_FMT,
                   STR_ARG(str_first(url->host, 60)), status, STR_ARG(str_first(url->path, 120)),
                   STR_ARG(reason));
}

/* ---- Patience ---- */

static void ask_all_to_wait(struct remote *remote, int64_t us)
{
    struct mono_us until = {clock_mono().us + us};
    auto_lock held = lock_take(&remote->mutex);
    if (until.us > remote->not_before.us)
        remote->not_before = until;
}

static bool may_go_on(struct remote *remote)
{
    auto_lock held = lock_take(&remote->mutex);
    return clock_mono().us >= remote->not_before.us;
}

static void wait_turn(struct remote *remote)
{
    const struct timespec step = {.tv_nsec = PAUSE_STEP_US * 1000};
    while (!atomic_load(remote->stopping) && !may_go_on(remote))
        (void)nanosleep(&step, NULL);
}

static void pause_for(struct remote *remote, int64_t us)
{
    struct mono_us began = clock_mono();
    const struct timespec step = {.tv_nsec = PAUSE_STEP_US * 1000};
    while (!atomic_load(remote->stopping) && clock_since_us(began) < us)
        (void)nanosleep(&step, NULL);
}

/* Whether to try again after failure number `n`; waits before. `answer` is of status 0 without
 * one. */
static bool try_again(struct remote *remote, const struct err *err,
                      const struct fetch_answer *answer, unsigned n)
{
    if (err->kind != ERR_BUSY && err->kind != ERR_IO && err->kind != ERR_TIMEOUT)
        return false;
    int64_t asked = -1;
    if (answer->status == 429 || answer->status == 503)
        asked = retry_after_us(fetch_header(answer, "Retry-After"), clock_wall());
    if (asked > PAUSE_ASKED_MAX_US || n >= (asked >= 0 ? TRIES_ASKED_MAX : TRIES_MAX) ||
        atomic_load(remote->stopping))
        return false;
    int64_t pause = PAUSE_FIRST_US << (n < 8 ? n - 1 : 7);
    if (asked >= 0)
        ask_all_to_wait(remote, asked > PAUSE_FIRST_US ? asked : PAUSE_FIRST_US);
    else
        pause_for(remote, pause);
    return true;
}

int remote_get(struct call *call, struct remote *remote, const struct remote_request *request,
               struct fetch_answer *ret)
{
    for (unsigned n = 1;; n++) {
        struct taking taking = {.request = request};
        struct fetch_answer answer = {0};
        struct url url = request->url;
        wait_turn(remote);
        if (follow(call, remote, &taking, &url, &answer) == 0 && judge(call, &url, &answer) == 0) {
            *ret = answer;
            return 0;
        }
        bool is_lost = request->is_first && call->err.kind != ERR_BUSY;
        if (taking.failed || is_lost || !try_again(remote, &call->err, &answer, n))
            return -1;
    }
}
