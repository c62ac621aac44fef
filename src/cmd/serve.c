/* The server's life: open, listen, say so, wait for signals, stop. */
#include "api/api.h"
#include "cmd/cmd.h"
#include "jobs/jobs.h"

#include <arpa/inet.h>
#include <malloc.h>
#include <netdb.h>
#include <signal.h>
#include <sys/resource.h>
#include <systemd/sd-daemon.h>

#define TICK_US CLOCK_SECOND_US
#define CERTIFICATE_CHECK_US (2 * CLOCK_SECOND_US)
#define EXPIRY_US (60 * CLOCK_SECOND_US)
#define FOLD_US (60 * CLOCK_SECOND_US)
#define JOB_THREADS 2
#define JOB_LOOK_US (5 * CLOCK_SECOND_US)
#define STOP_GRACE_US (2 * CLOCK_SECOND_US) /* for what is cut off, jobs among it, to end */

/* What runs, in the order in which it is started; stopped in the reverse. */
struct app {
    struct config config;
    int listeners[CONFIG_LISTEN_MAX];
    size_t n_listeners;
    struct metrics *metrics;
    struct registry *registry;
    struct jobs *jobs;
    struct job_kind kinds[2];
    struct api *api;
    struct http_server *server;
};

/* ---- Listening ---- */

static void say_listening(const struct app *app, int fd)
{
    struct sockaddr_storage address = {0};
    socklen_t n = sizeof(address);
    char host[INET6_ADDRSTRLEN] = "?";
    char port[8] = "?";
    bool v6 = false;
    if (getsockname(fd, (struct sockaddr *)&address, &n) == 0) {
        v6 = address.ss_family == AF_INET6;
        (void)getnameinfo((struct sockaddr *)&address, n, host, sizeof(host), port, sizeof(port),
                          NI_NUMERICHOST | NI_NUMERICSERV);
    }
    char text[INET6_ADDRSTRLEN + 16];
    (void)snprintf(text, sizeof(text), v6 ? "[%s]:%s" : "%s:%s", host, port);
    log_say(LOG_LEVEL_INFO, "listening", LOG_Z("address", text),
            LOG_Z("scheme", app->config.tls_certificate.n > 0 ? "https" : "http"));
}

/* Sockets that the service manager hands over take the place of the setting `listen`. */
static int take_activated(struct app *app, int n, struct err *err)
{
    if (n > CONFIG_LISTEN_MAX)
        return err_set(err, ERR_INVALID, "%d sockets were handed over, at most %d can be used", n,
                       CONFIG_LISTEN_MAX);
    for (int i = 0; i < n; i++) {
        int fd = SD_LISTEN_FDS_START + i;
        struct sockaddr_storage address;
        socklen_t bytes = sizeof(address);
        if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 1) <= 0 ||
            getsockname(fd, (struct sockaddr *)&address, &bytes) < 0)
            return err_set(err, ERR_INVALID, "socket %d that was handed over does not listen", fd);
        if (!config_may_listen(&app->config, (struct sockaddr *)&address))
            return err_set(err, ERR_INVALID,
                           "a socket that was handed over listens beyond loopback while anonymous "
                           "push is allowed; set access.anonymous to none or pull, or "
                           "access.anonymous_push_anywhere to true");
        app->listeners[app->n_listeners++] = fd;
    }
    return 0;
}

static int listen_all(struct app *app, struct err *err)
{
    int activated = sd_listen_fds(/* unset_environment= */ 1);
    if (activated > 0)
        return take_activated(app, activated, err);
    for (size_t i = 0; i < app->config.n_listen; i++) {
        const struct config_listen *at = &app->config.listen[i];
        if (http_listen((const struct sockaddr *)&at->address, at->address_bytes, at->text.p,
                        &app->listeners[app->n_listeners], err) < 0)
            return -1;
        app->n_listeners++;
    }
    return 0;
}

/* ---- Start and stop ---- */

static const char *path_or_null(struct str text)
{
    return text.n > 0 ? text.p : NULL;
}

static int start_http(struct app *app, struct err *err)
{
    const struct config *config = &app->config;
    bool client_auth = config->tls_client_auth != CONFIG_CLIENT_AUTH_NONE;
    const struct http_options options = {
        .listeners = app->listeners,
        .n_listeners = app->n_listeners,
        .threads = cmd_event_threads(config),
        .workers = (unsigned)config->http_workers,
        .queue = (unsigned)config->http_queue,
        .connections = (unsigned)config->limits_connections,
        .connections_per_address = (unsigned)config->limits_connections_per_address,
        .header_us = config->timeouts_header,
        .idle_us = config->timeouts_idle,
        .body_us = config->timeouts_body,
        .certificate_file = path_or_null(config->tls_certificate),
        .key_file = path_or_null(config->tls_key),
        .client_ca_file = client_auth ? path_or_null(config->tls_client_ca) : NULL,
        .metrics = app->metrics,
        .app = api_http_app(app->api),
    };
    return http_start(&options, &app->server, err);
}

/* ---- Background work ---- */

static int expire_uploads(struct call *call, void *context, struct job *job)
{
    struct app *app = context;
    size_t n;
    (void)job;
    if (registry_uploads_expire(call, app->registry, &n) < 0)
        return -1;
    if (n > 0)
        log_say(LOG_LEVEL_INFO, "stale uploads removed", LOG_INT("uploads", n));
    return 0;
}

static int fold_totals(struct call *call, void *context, struct job *job)
{
    struct app *app = context;
    (void)job;
    return registry_totals_fold(call, app->registry);
}

/* A registry that is read only is left as it is by jobs, too. */
static int start_jobs(struct app *app, struct err *err)
{
    if (app->config.read_only)
        return 0;
    size_t n = 0;
    app->kinds[n++] = (struct job_kind){"uploads.expire", EXPIRY_US, expire_uploads, app};
    if (app->config.metadata.n > 0)
        app->kinds[n++] = (struct job_kind){"totals.fold", FOLD_US, fold_totals, app};
    const struct jobs_options options = {
        .db = registry_db(app->registry),
        .kinds = app->kinds,
        .n_kinds = n,
        .threads = JOB_THREADS,
        .lease_us = app->config.cluster_lease,
        .look_us = JOB_LOOK_US,
    };
    return jobs_start(&options, &app->jobs, err);
}

static int start(struct app *app, struct err *err)
{
    size_t n_routes;
    const char *const *routes = api_route_names(&n_routes);
    app->metrics = metrics_new(routes, n_routes);

    enum registry_use use = app->config.read_only ? REGISTRY_SERVE_READ_ONLY : REGISTRY_SERVE;
    if (cmd_open_registry(&app->config, app->metrics, use, &app->registry, err) < 0 ||
        listen_all(app, err) < 0 || start_jobs(app, err) < 0)
        return -1;
    app->api = api_new(app->registry, &app->config, app->metrics);
    return start_http(app, err);
}

/* Whatever hangs, the object store say, this takes hardly longer than requests are given. */
static void stop(struct app *app)
{
    registry_give_up(app->registry, app->config.timeouts_shutdown + STOP_GRACE_US);
    if (app->server != NULL) {
        size_t cut = http_stop(app->server, app->config.timeouts_shutdown);
        log_say(LOG_LEVEL_INFO, "stopped", LOG_INT("requests_cut_off", cut));
    }
    registry_give_up(app->registry, STOP_GRACE_US);
    jobs_stop(app->jobs, 0); /* requests have had their time, and jobs with them */
    api_free(app->api);
    registry_close(app->registry);
    metrics_free(app->metrics);
    config_done(&app->config);
}

static void say_start(const struct app *app)
{
    log_say(LOG_LEVEL_INFO, "starting", LOG_Z("version", HOLDFAST_VERSION),
            LOG_STR("data", app->config.data),
            LOG_Z("metadata", app->config.metadata.n > 0 ? "postgres" : "sqlite"),
            LOG_Z("blobs", app->config.blobs.n > 0 ? app->config.blobs.p : "files"));
    for (size_t i = 0; i < app->n_listeners; i++)
        say_listening(app, app->listeners[i]);
    if (app->config.access_anonymous == CONFIG_ANONYMOUS_PUSH)
        log_say(LOG_LEVEL_WARN,
                "anonymous clients may push and delete; see the setting access.anonymous");
}

/* ---- Running ---- */

static void reload_certificate(struct app *app)
{
    struct err err;
    if (app->config.tls_certificate.n == 0)
        return;
    if (http_reload_certificate(app->server, &err) < 0)
        log_err(LOG_LEVEL_ERROR, "the new certificate cannot be used, the old one stays", &err);
    else
        log_say(LOG_LEVEL_INFO, "certificate read again");
}

/* Until SIGTERM or SIGINT. */
static void run(struct app *app, const sigset_t *signals)
{
    struct mono_us certificate_checked = clock_mono();
    for (;;) {
        if (clock_since_us(certificate_checked) >= CERTIFICATE_CHECK_US) {
            certificate_checked = clock_mono();
            if (http_certificate_changed(app->server))
                reload_certificate(app);
        }
        const struct timespec tick = {.tv_sec = TICK_US / CLOCK_SECOND_US};
        int number = sigtimedwait(signals, NULL, &tick);
        if (number == SIGHUP)
            reload_certificate(app);
        if (number == SIGTERM || number == SIGINT) {
            log_say(LOG_LEVEL_INFO, "stopping", LOG_Z("signal", sigabbrev_np(number)));
            return;
        }
    }
}

/* Every connection is a descriptor, and each of its requests may open a blob. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* Parts of uploads are given back to the system when they are freed. Left to itself the library
 * learns from the first of them to keep the next ones. */
#define KEPT_BYTES_MAX (1 << 20)

int cmd_serve(int n_arguments, char **arguments)
{
    struct app app = {0};
    struct err err;
    int status = cmd_load_config(n_arguments, arguments, &app.config);
    if (status != EXIT_DONE)
        return status;

    sigset_t signals; /* blocked in every thread; the main one waits for them */
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    raise_descriptor_limit();
    (void)mallopt(M_MMAP_THRESHOLD, KEPT_BYTES_MAX);

    if (start(&app, &err) < 0) {
        status = cmd_fail(&err);
    } else {
        say_start(&app);
        (void)sd_notify(0, "READY=1");
        run(&app, &signals);
        (void)sd_notify(0, "STOPPING=1");
    }
    stop(&app);
    return status;
}
