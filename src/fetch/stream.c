/* Streams: one thread drives all transfers, each into a ring that its reader empties.
 *
 * Who does what: the driver alone touches the library. A reader takes from the ring, and asks the
 * driver for what it cannot do itself: to begin, to go on after the ring was full, to end. The last
 * request of a stream is the one to end it; the driver frees it then.
 * Locks: a stream's, and the driver's for the list of requests; never both at a time, and `ready`
 * is called under neither. */
#include "fetch/fetch_int.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#define RING_BYTES ((size_t)256 * 1024)
#define REFUSAL_BYTES_MAX 400 /* of the body of an unexpected answer, for the log */
#define EVENTS_MAX 64
#define CHECK_US CLOCK_SECOND_US

enum { ASK_BEGIN = 1, ASK_GO_ON = 2, ASK_END = 4 };
enum flow_state { FLOW_RUNNING, FLOW_COMPLETE, FLOW_FAILED };

struct flow {
    struct stream stream; /* first */
    struct driver *driver;

    /* The driver thread's alone, once it was asked to begin. */
    CURL *easy; /* owned; NULL after the transfer */
    struct curl_slist *headers;
    struct str origin; /* of `url` */
    char *url;         /* owned */
    unsigned status;
    uint64_t size;
    uint64_t received;
    char call_id[CALL_ID_BYTES];
    struct head head;
    struct buf refusal;
    struct err err; /* kind NONE until it failed */
    struct mono_us begins;
    struct mono_us moved;
    bool running; /* the library has it */
    char text[CURL_ERROR_SIZE];
    struct flow *previous; /* of all that the driver has */
    struct flow *next;
    struct flow *next_touched;
    bool touched; /* its reader may have to be told */

    /* Under the driver's mutex. */
    unsigned asks;
    bool queued;
    struct flow *next_queued;

    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t told;
    char *ring; /* owned */
    size_t start;
    size_t used;
    enum flow_state state;
    unsigned failed_status;
    bool full;     /* the transfer pauses until the reader has made room */
    bool going_on; /* it has, and the driver was asked */
    bool waits;    /* the reader found nothing */
    bool telling;  /* `ready` is running */
    bool closed;
    void (*ready)(void *context);
    void *context;
};

struct driver {
    pthread_t thread;
    int64_t silence_us;
    const struct fetch *fetch;
    int epoll; /* owned */
    int wake;  /* owned */

    pthread_mutex_t mutex; /* of what follows */
    struct flow *first_queued;
    struct flow *last_queued;
    bool stopping;

    /* The thread's alone. */
    CURLM *multi; /* owned */
    bool has_timer;
    struct mono_us timer;
    struct mono_us checked;
    struct flow *flows;
    struct flow *first_touched;
    size_t n_delayed; /* of flows: those that are still to begin */
};

/* ---- The reader's side ---- */

static void ask(struct flow *flow, unsigned what)
{
    struct driver *driver = flow->driver;
    bool first = false;
    {
        auto_lock held = lock_take(&driver->mutex);
        flow->asks |= what;
        if (flow->queued)
            return;
        flow->queued = true;
        flow->next_queued = NULL;
        first = driver->first_queued == NULL;
        if (first)
            driver->first_queued = flow;
        else
            driver->last_queued->next_queued = flow;
        driver->last_queued = flow;
    }
    if (first) /* `flow` may be gone by now, the driver is not */
        (void)eventfd_write(driver->wake, 1);
}

static size_t take_bytes(struct flow *flow, char *p, size_t max)
{
    size_t n = max < flow->used ? max : flow->used;
    size_t to_end = RING_BYTES - flow->start;
    size_t first = n < to_end ? n : to_end;
    memcpy(p, flow->ring + flow->start, first);
    memcpy(p + first, flow->ring, n - first);
    flow->start = (flow->start + n) % RING_BYTES;
    flow->used -= n;
    return n;
}

static ssize_t flow_read(struct stream *stream, void *p, size_t max)
{
    struct flow *flow = (struct flow *)stream;
    ssize_t result = STREAM_LATER;
    bool go_on = false;
    {
        auto_lock held = lock_take(&flow->mutex);
        if (flow->used > 0) {
            result = (ssize_t)take_bytes(flow, p, max);
            go_on = flow->full && !flow->going_on && flow->used <= RING_BYTES / 2;
            flow->going_on = flow->going_on || go_on;
        } else if (flow->state == FLOW_RUNNING)
            flow->waits = true;
        else
            result = flow->state == FLOW_COMPLETE ? STREAM_END : STREAM_FAILED;
    }
    if (go_on)
        ask(flow, ASK_GO_ON);
    return result;
}

static void flow_watch(struct stream *stream, void (*ready)(void *context), void *context)
{
    struct flow *flow = (struct flow *)stream;
    auto_lock held = lock_take(&flow->mutex);
    flow->ready = ready;
    flow->context = context;
}

static void flow_close(struct stream *stream)
{
    struct flow *flow = (struct flow *)stream;
    {
        auto_lock held = lock_take(&flow->mutex);
        flow->closed = true;
        while (flow->telling)
            require(pthread_cond_wait(&flow->told, &flow->mutex) == 0);
    }
    ask(flow, ASK_END);
}

static const struct stream_kind flow_kind = {flow_read, flow_watch, flow_close};

unsigned fetch_stream_status(const struct stream *stream)
{
    require(stream->kind == &flow_kind);
    struct flow *flow = (struct flow *)(uintptr_t)stream;
    auto_lock held = lock_take(&flow->mutex);
    return flow->failed_status;
}

/* ---- The driver's side: one flow ---- */

static void touch(struct flow *flow)
{
    if (flow->touched)
        return;
    flow->touched = true;
    flow->next_touched = flow->driver->first_touched;
    flow->driver->first_touched = flow;
}

static void tell(struct flow *flow)
{
    void (*ready)(void *) = NULL;
    void *context = NULL;
    {
        auto_lock held = lock_take(&flow->mutex);
        if (!flow->waits || flow->closed || (flow->used == 0 && flow->state == FLOW_RUNNING))
            return;
        flow->waits = false;
        ready = flow->ready;
        context = flow->context;
        flow->telling = ready != NULL;
    }
    if (ready == NULL)
        return;
    ready(context);
    auto_lock held = lock_take(&flow->mutex);
    flow->telling = false;
    require(pthread_cond_broadcast(&flow->told) == 0);
}

/* After everything that may have moved bytes, so that a reader is told once for many pieces. */
static void tell_touched(struct driver *driver)
{
    while (driver->first_touched != NULL) {
        struct flow *flow = driver->first_touched;
        driver->first_touched = flow->next_touched;
        flow->touched = false;
        tell(flow);
    }
}

/* Of a full ring nothing is taken: the library offers the piece again when it goes on. */
static bool put_bytes(struct flow *flow, const char *p, size_t n)
{
    auto_lock held = lock_take(&flow->mutex);
    if (n > RING_BYTES - flow->used) {
        flow->full = true;
        return false;
    }
    size_t end = (flow->start + flow->used) % RING_BYTES;
    size_t first = n < RING_BYTES - end ? n : RING_BYTES - end;
    memcpy(flow->ring + end, p, first);
    memcpy(flow->ring, p + first, n - first);
    flow->used += n;
    return true;
}

static size_t flow_on_body(char *p, size_t size, size_t n, void *context)
{
    (void)size; /* 1 */
    struct flow *flow = context;
    flow->moved = clock_mono();
    if (flow->err.kind != ERR_NONE) {
        buf_add(&flow->refusal, p, n < REFUSAL_BYTES_MAX ? n : REFUSAL_BYTES_MAX);
        return flow->refusal.overflow ? 0 : n;
    }
    if (n > flow->size - flow->received) {
        (void)err_set(&flow->err, ERR_CORRUPT, "another server sent more than it was to send");
        (void)err_why(&flow->err, STR_FMT ": more than %llu bytes", STR_ARG(flow->origin),
                      (unsigned long long)flow->size);
        return 0;
    }
    touch(flow);
    if (!put_bytes(flow, p, n))
        return CURL_WRITEFUNC_PAUSE;
    flow->received += n;
    return n;
}

/* Before the first byte reaches the reader. */
static int check_head(struct flow *flow)
{
    curl_off_t length = -1;
    (void)curl_easy_getinfo(flow->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    if (flow->head.status != flow->status) {
        (void)err_set(&flow->err, ERR_IO, "another server refused a request");
        return err_why(&flow->err, STR_FMT ": status %u instead of %u", STR_ARG(flow->origin),
                       flow->head.status, flow->status);
    }
    if (length >= 0 && (uint64_t)length != flow->size) {
        (void)err_set(&flow->err, ERR_CORRUPT, "another server's answer has the wrong length");
        return err_why(&flow->err, STR_FMT ": %lld bytes instead of %llu", STR_ARG(flow->origin),
                       (long long)length, (unsigned long long)flow->size);
    }
    return 0;
}

static size_t flow_on_header(char *p, size_t size, size_t n, void *context)
{
    (void)size; /* 1 */
    struct flow *flow = context;
    flow->moved = clock_mono();
    bool was_complete = flow->head.complete;
    if (head_add(&flow->head, (struct str){p, n}, &flow->err) < 0)
        return 0;
    if (!was_complete && flow->head.complete && check_head(flow) < 0)
        return flow->head.status >= 300 ? n : 0; /* a refusal's body says why */
    return n;
}

static void detach(struct flow *flow)
{
    struct driver *driver = flow->driver;
    if (flow->easy == NULL)
        return;
    if (flow->running)
        (void)curl_multi_remove_handle(driver->multi, flow->easy);
    else
        driver->n_delayed--;
    flow->running = false;
    curl_easy_cleanup(TAKE(flow->easy));
    curl_slist_free_all(TAKE(flow->headers));
}

static void finish(struct flow *flow, CURLcode code)
{
    struct err *err = &flow->err;
    if (err->kind == ERR_NONE && code != CURLE_OK)
        (void)transfer_failed(code, flow->text, flow->origin, err);
    if (err->kind == ERR_NONE && flow->received < flow->size) {
        (void)err_set(err, ERR_IO, "another server's answer ended early");
        (void)err_why(err, STR_FMT ": %llu of %llu bytes", STR_ARG(flow->origin),
                      (unsigned long long)flow->received, (unsigned long long)flow->size);
    }
    detach(flow);
    if (err->kind != ERR_NONE)
        log_say(LOG_LEVEL_WARN, "a stream from another server failed", LOG_Z("call", flow->call_id),
                LOG_Z("kind", err_kind_name(err->kind)), LOG_Z("why", err->why),
                LOG_INT("received", flow->received), LOG_STR("answer", buf_str(&flow->refusal)));
    {
        auto_lock held = lock_take(&flow->mutex);
        flow->state = err->kind == ERR_NONE ? FLOW_COMPLETE : FLOW_FAILED;
        flow->failed_status = flow->head.status;
    }
    touch(flow);
}

static void flow_begin(struct flow *flow)
{
    flow->running = true;
    flow->moved = clock_mono();
    require(curl_multi_add_handle(flow->driver->multi, flow->easy) == CURLM_OK);
}

static void flow_go_on(struct flow *flow)
{
    if (!flow->running)
        return;
    flow->moved = clock_mono();
    {
        auto_lock held = lock_take(&flow->mutex);
        flow->full = false;
        flow->going_on = false;
    }
    (void)curl_easy_pause(flow->easy, CURLPAUSE_CONT); /* its failure comes as the transfer's */
}

static void flow_free(struct flow *flow)
{
    detach(flow);
    struct flow **link = flow->previous != NULL ? &flow->previous->next : &flow->driver->flows;
    *link = flow->next;
    if (flow->next != NULL)
        flow->next->previous = flow->previous;
    buf_done(&flow->head.lines);
    buf_done(&flow->refusal);
    require(pthread_mutex_destroy(&flow->mutex) == 0);
    require(pthread_cond_destroy(&flow->told) == 0);
    free(flow->url);
    free(flow->ring);
    free(flow);
}

/* ---- The driver's side: all flows ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *known)
{
    (void)easy;
    struct driver *driver = context;
    if (what == CURL_POLL_REMOVE) {
        (void)epoll_ctl(driver->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event event = {
        .events = (what & CURL_POLL_IN ? EPOLLIN : 0U) | (what & CURL_POLL_OUT ? EPOLLOUT : 0U),
        .data.fd = fd,
    };
    (void)known; /* may be about an earlier socket of that number */
    if (epoll_ctl(driver->epoll, EPOLL_CTL_MOD, fd, &event) == 0 || errno != ENOENT)
        return 0;
    require(epoll_ctl(driver->epoll, EPOLL_CTL_ADD, fd, &event) == 0);
    return 0;
}

static int on_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct driver *driver = context;
    driver->has_timer = timeout_ms >= 0;
    driver->timer = (struct mono_us){clock_mono().us + timeout_ms * 1000};
    return 0;
}

static bool next_asked(struct driver *driver, struct flow **ret, unsigned *ret_asks)
{
    auto_lock held = lock_take(&driver->mutex);
    struct flow *flow = driver->first_queued;
    if (flow == NULL)
        return false;
    driver->first_queued = flow->next_queued;
    flow->queued = false;
    *ret = flow;
    *ret_asks = flow->asks;
    flow->asks = 0;
    return true;
}

static void adopt(struct driver *driver, struct flow *flow)
{
    flow->next = driver->flows;
    if (flow->next != NULL)
        flow->next->previous = flow;
    driver->flows = flow;
    driver->n_delayed++;
}

static void do_asked(struct driver *driver)
{
    struct flow *flow;
    unsigned asks;
    while (next_asked(driver, &flow, &asks)) {
        if (asks & ASK_BEGIN)
            adopt(driver, flow);
        if (asks & ASK_END) {
            flow_free(flow);
            continue;
        }
        if (asks & ASK_GO_ON)
            flow_go_on(flow);
        tell_touched(driver);
    }
}

static void begin_delayed(struct driver *driver)
{
    if (driver->n_delayed == 0)
        return;
    struct mono_us now = clock_mono();
    for (struct flow *flow = driver->flows; flow != NULL; flow = flow->next)
        if (flow->easy != NULL && !flow->running && flow->begins.us <= now.us) {
            driver->n_delayed--;
            flow_begin(flow);
        }
}

static void finish_done(struct driver *driver)
{
    int left;
    for (CURLMsg *message = curl_multi_info_read(driver->multi, &left); message != NULL;
         message = curl_multi_info_read(driver->multi, &left)) {
        struct flow *flow = NULL;
        (void)curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &flow);
        finish(flow, message->data.result);
    }
}

static bool is_silent(struct flow *flow)
{
    if (!flow->running || clock_since_us(flow->moved) <= flow->driver->silence_us)
        return false;
    auto_lock held = lock_take(&flow->mutex);
    return !flow->full; /* the silence is not the reader's */
}

static void end_silent(struct driver *driver)
{
    if (clock_since_us(driver->checked) < CHECK_US)
        return;
    driver->checked = clock_mono();
    for (struct flow *flow = driver->flows; flow != NULL; flow = flow->next)
        if (is_silent(flow)) {
            if (flow->err.kind == ERR_NONE)
                (void)transfer_silent(driver->fetch, flow->origin, &flow->err);
            finish(flow, CURLE_OK);
        }
}

static int patience_ms(const struct driver *driver)
{
    int64_t us = CHECK_US;
    struct mono_us now = clock_mono();
    if (driver->has_timer && driver->timer.us - now.us < us)
        us = driver->timer.us - now.us;
    if (driver->n_delayed > 0)
        for (struct flow *flow = driver->flows; flow != NULL; flow = flow->next)
            if (flow->easy != NULL && !flow->running && flow->begins.us - now.us < us)
                us = flow->begins.us - now.us;
    if (driver->flows == NULL && !driver->has_timer)
        return -1;
    return us <= 0 ? 0 : (int)((us + 999) / 1000);
}

static void do_event(struct driver *driver, const struct epoll_event *event)
{
    int running;
    if (event->data.fd == driver->wake) {
        eventfd_t count;
        (void)eventfd_read(driver->wake, &count);
        return;
    }
    int what = (event->events & EPOLLIN ? CURL_CSELECT_IN : 0) |
               (event->events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (event->events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    if (event->events & EPOLLIN)
        transfer_acknowledge(event->data.fd);
    (void)curl_multi_socket_action(driver->multi, event->data.fd, what, &running);
    tell_touched(driver);
}

static bool is_stopping(struct driver *driver)
{
    auto_lock held = lock_take(&driver->mutex);
    return driver->stopping && driver->first_queued == NULL;
}

static void *drive(void *context)
{
    struct driver *driver = context;
    struct epoll_event events[EVENTS_MAX];
    while (!is_stopping(driver)) {
        int n = epoll_wait(driver->epoll, events, EVENTS_MAX, patience_ms(driver));
        for (int i = 0; i < n; i++)
            do_event(driver, &events[i]);
        do_asked(driver);
        begin_delayed(driver);
        if (driver->has_timer && driver->timer.us <= clock_mono().us) {
            int running;
            driver->has_timer = false;
            (void)curl_multi_socket_action(driver->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        }
        finish_done(driver);
        end_silent(driver);
        tell_touched(driver);
    }
    return NULL;
}

/* ---- Beginning and end ---- */

static void driver_done(struct driver *driver)
{
    (void)curl_multi_cleanup(driver->multi);
    (void)close(driver->epoll);
    (void)close(driver->wake);
    require(pthread_mutex_destroy(&driver->mutex) == 0);
    free(driver);
}

static int driver_new(const struct fetch *fetch, struct driver **ret, struct err *err)
{
    auto_fd epoll = epoll_create1(EPOLL_CLOEXEC);
    auto_fd wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = wake};
    if (epoll < 0 || wake < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, wake, &event) < 0)
        return err_sys(err, "could not prepare the thread for streams");

    struct driver *driver = mem_zalloc(sizeof(*driver));
    driver->fetch = fetch;
    driver->silence_us = fetch->options.silence_us;
    driver->multi = curl_multi_init();
    require(driver->multi != NULL && pthread_mutex_init(&driver->mutex, NULL) == 0);
    curl_multi_setopt(driver->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(driver->multi, CURLMOPT_SOCKETDATA, driver);
    curl_multi_setopt(driver->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(driver->multi, CURLMOPT_TIMERDATA, driver);
    curl_multi_setopt(driver->multi, CURLMOPT_MAXCONNECTS, (long)fetch->options.connections + 1);
    driver->epoll = take_fd(&epoll);
    driver->wake = take_fd(&wake);
    int number = pthread_create(&driver->thread, NULL, drive, driver);
    if (number != 0) {
        driver_done(driver);
        errno = number;
        return err_sys(err, "could not start the thread for streams");
    }
    (void)pthread_setname_np(driver->thread, "fetch-streams");
    *ret = driver;
    return 0;
}

void driver_free(struct driver *driver)
{
    if (driver == NULL)
        return;
    {
        auto_lock held = lock_take(&driver->mutex);
        driver->stopping = true;
    }
    (void)eventfd_write(driver->wake, 1);
    require(pthread_join(driver->thread, NULL) == 0);
    require(driver->flows == NULL);
    driver_done(driver);
}

static int driver_get(struct fetch *fetch, struct driver **ret, struct err *err)
{
    auto_lock held = lock_take(&fetch->mutex);
    if (fetch->driver == NULL && driver_new(fetch, &fetch->driver, err) < 0)
        return -1;
    *ret = fetch->driver;
    return 0;
}

static void set_up(struct flow *flow)
{
    curl_easy_setopt(flow->easy, CURLOPT_PRIVATE, flow);
    curl_easy_setopt(flow->easy, CURLOPT_ERRORBUFFER, flow->text);
    curl_easy_setopt(flow->easy, CURLOPT_HEADERFUNCTION, flow_on_header);
    curl_easy_setopt(flow->easy, CURLOPT_HEADERDATA, flow);
    curl_easy_setopt(flow->easy, CURLOPT_WRITEFUNCTION, flow_on_body);
    curl_easy_setopt(flow->easy, CURLOPT_WRITEDATA, flow);
}

int fetch_stream(struct fetch *fetch, const struct fetch_request *request, unsigned status,
                 uint64_t size, const char *call_id, struct stream **ret, struct err *err)
{
    struct driver *driver;
    if (driver_get(fetch, &driver, err) < 0)
        return -1;
    struct fetch_request get = *request;
    get.method = "GET";
    get.body = (struct str){NULL, 0};

    CURL *easy = curl_easy_init();
    struct curl_slist *headers = NULL;
    require(easy != NULL);
    if (transfer_setup(easy, fetch, &get, &headers, err) < 0) {
        curl_easy_cleanup(easy);
        return -1;
    }
    struct flow *flow = mem_zalloc(sizeof(*flow));
    flow->stream.kind = &flow_kind;
    flow->driver = driver;
    flow->easy = easy;
    flow->headers = headers;
    flow->url = mem_strdup(request->url);
    require(url_origin(flow->url, &flow->origin, err) == 0); /* as it was a moment ago */
    flow->status = status;
    flow->size = size;
    (void)snprintf(flow->call_id, sizeof(flow->call_id), "%s", call_id);
    flow->head = HEAD_INIT;
    flow->refusal = BUF_INIT(REFUSAL_BYTES_MAX);
    flow->begins = (struct mono_us){clock_mono().us + request->after_us};
    require(pthread_mutex_init(&flow->mutex, NULL) == 0);
    require(pthread_cond_init(&flow->told, NULL) == 0);
    flow->ring = mem_alloc(RING_BYTES);
    set_up(flow);
    ask(flow, ASK_BEGIN);
    *ret = &flow->stream;
    return 0;
}
