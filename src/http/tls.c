/* Certificates. What a connection needs is one immutable snapshot with a count of its users, so
 * that a new certificate takes effect for new connections and harms none that stand. */
#include "http/http_int.h"

#include <errno.h>
#include <gnutls/x509.h>
#include <sys/stat.h>

struct tls_credentials {
    gnutls_certificate_credentials_t chain; /* owned */
    bool asks_client;
    atomic_uint users;
};

/* Tells one content of a file from another without reading it. */
struct file_mark {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

enum { FILE_CERTIFICATE, FILE_KEY, FILE_CLIENT_CA, FILES };

struct tls {
    char *files[FILES]; /* owned; NULL: not configured */
    pthread_mutex_t mutex;
    /* Under the mutex. */
    struct tls_credentials *current; /* a reference */
    struct file_mark marks[FILES];   /* of what `current` was read from */
};

static const char *const file_words[FILES] = {
    "TLS certificate",
    "TLS key",
    "client CA file",
};

const char *tls_priorities(void)
{
    /* TLS 1.2 and newer, authenticated encryption with forward secrecy only. AES-128 first: it is
     * the fastest, and as good as the others for what certificates protect. */
    return "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:"
           "+CHACHA20-POLY1305:-RSA:%SERVER_PRECEDENCE";
}

void tls_unref(struct tls_credentials *credentials)
{
    if (credentials == NULL || atomic_fetch_sub(&credentials->users, 1) > 1)
        return;
    gnutls_certificate_free_credentials(credentials->chain);
    free(credentials);
}

static void unref_auto(struct tls_credentials **credentials)
{
    tls_unref(*credentials);
}
#define auto_credentials __attribute__((cleanup(unref_auto))) struct tls_credentials *

static int mark_file(const char *file, const char *word, struct file_mark *ret, struct err *err)
{
    struct stat st;
    if (stat(file, &st) < 0)
        return err_set(err, ERR_IO, "cannot read %s \"%s\": %s", word, file,
                       strerrordesc_np(errno));
    *ret = (struct file_mark){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
    return 0;
}

static bool same_mark(const struct file_mark *a, const struct file_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static void datum_done(gnutls_datum_t *datum)
{
    if (datum->data != NULL)
        gnutls_memset(datum->data, 0, datum->size); /* it may be a key */
    gnutls_free(datum->data);
}
#define auto_datum __attribute__((cleanup(datum_done))) gnutls_datum_t

static int load_file(const char *file, const char *word, gnutls_datum_t *ret, struct err *err)
{
    errno = 0;
    if (gnutls_load_file(file, ret) < 0) {
        *ret = (gnutls_datum_t){NULL, 0};
        return err_set(err, ERR_IO, "cannot read %s \"%s\": %s", word, file,
                       errno != 0 ? strerrordesc_np(errno) : "it cannot be loaded");
    }
    return 0;
}

static int load_chain(const struct tls *tls, struct tls_credentials *credentials, struct err *err)
{
    const char *certificate_file = tls->files[FILE_CERTIFICATE];
    const char *key_file = tls->files[FILE_KEY];
    auto_datum certificate = {NULL, 0};
    auto_datum key = {NULL, 0};
    if (load_file(certificate_file, file_words[FILE_CERTIFICATE], &certificate, err) < 0 ||
        load_file(key_file, file_words[FILE_KEY], &key, err) < 0)
        return -1;
    int code = gnutls_certificate_set_x509_key_mem2(credentials->chain, &certificate, &key,
                                                    GNUTLS_X509_FMT_PEM, NULL, 0);
    if (code < 0)
        return err_set(err, ERR_INVALID, "cannot use TLS certificate \"%s\" with key \"%s\": %s",
                       certificate_file, key_file, gnutls_strerror(code));
    return 0;
}

static int load_client_ca(const struct tls *tls, struct tls_credentials *credentials,
                          struct err *err)
{
    const char *file = tls->files[FILE_CLIENT_CA];
    auto_datum ca = {NULL, 0};
    if (load_file(file, file_words[FILE_CLIENT_CA], &ca, err) < 0)
        return -1;
    int n = gnutls_certificate_set_x509_trust_mem(credentials->chain, &ca, GNUTLS_X509_FMT_PEM);
    if (n <= 0)
        return err_set(err, ERR_INVALID, "cannot use client CA file \"%s\": %s", file,
                       n < 0 ? gnutls_strerror(n) : "it holds no certificate");
    credentials->asks_client = true;
    return 0;
}

static int load(struct tls *tls, struct err *err)
{
    /* The marks first: a change while the files are read is then seen as one. */
    struct file_mark marks[FILES] = {0};
    for (size_t i = 0; i < FILES; i++)
        if (tls->files[i] != NULL && mark_file(tls->files[i], file_words[i], &marks[i], err) < 0)
            return -1;

    auto_credentials loaded = mem_zalloc(sizeof(*loaded));
    atomic_init(&loaded->users, 1);
    require(gnutls_certificate_allocate_credentials(&loaded->chain) == 0);
    if (load_chain(tls, loaded, err) < 0)
        return -1;
    if (tls->files[FILE_CLIENT_CA] != NULL && load_client_ca(tls, loaded, err) < 0)
        return -1;

    struct tls_credentials *fresh = TAKE(loaded);
    {
        auto_lock held = lock_take(&tls->mutex);
        /* NOLINTNEXTLINE(clang-analyzer-deadcode.DeadStores): it goes at the end of the scope */
        loaded = tls->current;
        tls->current = fresh;
        memcpy(tls->marks, marks, sizeof(marks));
    }
    return 0;
}

int tls_new(const struct http_options *options, struct tls **ret, struct err *err)
{
    if (options->key_file == NULL)
        return err_set(err, ERR_INVALID, "TLS certificate \"%s\" is given without a key",
                       options->certificate_file);
    struct tls *tls = mem_zalloc(sizeof(*tls));
    require(pthread_mutex_init(&tls->mutex, NULL) == 0);
    tls->files[FILE_CERTIFICATE] = mem_strdup(options->certificate_file);
    tls->files[FILE_KEY] = mem_strdup(options->key_file);
    if (options->client_ca_file != NULL)
        tls->files[FILE_CLIENT_CA] = mem_strdup(options->client_ca_file);
    if (load(tls, err) < 0) {
        tls_free(tls);
        return -1;
    }
    *ret = tls;
    return 0;
}

void tls_free(struct tls *tls)
{
    if (tls == NULL)
        return;
    tls_unref(tls->current);
    for (size_t i = 0; i < FILES; i++)
        free(tls->files[i]);
    (void)pthread_mutex_destroy(&tls->mutex);
    free(tls);
}

int tls_reload(struct tls *tls, struct err *err)
{
    return load(tls, err);
}

bool tls_changed(struct tls *tls)
{
    for (size_t i = 0; i < FILES; i++) {
        struct file_mark now;
        struct err ignored; /* it may be in the middle of being replaced: look again later */
        if (tls->files[i] == NULL || mark_file(tls->files[i], file_words[i], &now, &ignored) < 0)
            continue;
        auto_lock held = lock_take(&tls->mutex);
        if (!same_mark(&now, &tls->marks[i]))
            return true;
    }
    return false;
}

struct tls_credentials *tls_attach(struct tls *tls, gnutls_session_t session)
{
    struct tls_credentials *credentials = NULL;
    {
        auto_lock held = lock_take(&tls->mutex);
        credentials = tls->current;
        atomic_fetch_add(&credentials->users, 1);
    }
    /* Instead of the library's own, which are empty. */
    require(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials->chain) == 0);
    if (credentials->asks_client)
        gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
    return credentials;
}

bool tls_certified(const struct tls_credentials *credentials, gnutls_session_t session)
{
    if (!credentials->asks_client)
        return false;
    unsigned n = 0;
    if (gnutls_certificate_get_peers(session, &n) == NULL || n == 0)
        return false;
    char purpose[] = GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st data = {
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = (unsigned char *)purpose,
    };
    unsigned status = 0;
    return gnutls_certificate_verify_peers(session, &data, 1, &status) == 0 && status == 0;
}
