/* config: every setting, once. settings.def is the table: key, type, default, bounds, unit, what it
 * means. Command-line flags, HOLDFAST_* environment variables and the YAML file are three spellings
 * of the same keys (`limits.connections`: --limits-connections, HOLDFAST_LIMITS_CONNECTIONS,
 * limits: {connections: …}); precedence is flag, environment, file, default. Help, man page and
 * docs/configuration.md are made from or checked against the table.
 *
 * An unknown key or a bad value is an error that names where it stands (file:line, variable or
 * flag), the key and what was expected. The result is immutable.
 * Threads: any may read a struct config. */
#ifndef HOLDFAST_CONFIG_H
#define HOLDFAST_CONFIG_H

#include "base/base.h"

#include <sys/socket.h>

/* Who may do what without credentials. */
enum config_anonymous { CONFIG_ANONYMOUS_NONE, CONFIG_ANONYMOUS_PULL, CONFIG_ANONYMOUS_PUSH };
enum config_client_auth {
    CONFIG_CLIENT_AUTH_NONE,
    CONFIG_CLIENT_AUTH_OPTIONAL,
    CONFIG_CLIENT_AUTH_REQUIRED
};
enum config_log_format { CONFIG_LOG_AUTO, CONFIG_LOG_TEXT, CONFIG_LOG_JSON };
enum config_addressing { CONFIG_ADDRESSING_AUTO, CONFIG_ADDRESSING_PATH, CONFIG_ADDRESSING_HOST };
enum config_encryption { CONFIG_ENCRYPTION_NONE, CONFIG_ENCRYPTION_AES256, CONFIG_ENCRYPTION_KMS };
enum config_location { CONFIG_LOCATION_RELATIVE, CONFIG_LOCATION_ABSOLUTE };

#define CONFIG_LISTEN_MAX 16
#define CONFIG_TRUSTED_MAX 64

struct config_listen {
    struct str text; /* as written: "127.0.0.1:5000", "[::1]:5000", "0.0.0.0:5000" */
    struct sockaddr_storage address;
    socklen_t address_bytes;
    bool loopback;
};

/* An address or a network in CIDR notation whose forwarding headers are believed. */
struct config_network {
    int family;        /* AF_INET or AF_INET6 */
    uint8_t bytes[16]; /* 4 or 16 are used */
    unsigned bits;
};

struct config {
    struct arena arena; /* owns every str below; each is NUL-ended */
    struct config_listen listen[CONFIG_LISTEN_MAX];
    size_t n_listen;
    struct config_network trusted[CONFIG_TRUSTED_MAX]; /* proxy.trusted */
    size_t n_trusted;
    /* One field per scalar row of settings.def, named section_key; sizes in bytes, times in
     * microseconds. */
#define CONFIG_TEXT(key, field, fallback, help) struct str field;
#define CONFIG_WORD(key, field, fallback, placeholder, help) struct str field;
    /* With the file that it was read from; empty: it was given itself. */
#define CONFIG_URL(key, field, fallback, help) \
    struct str field;                          \
    struct str field##_file;
#define CONFIG_SECRET(key, field, fallback, help) \
    struct str field;                             \
    struct str field##_file;
#define CONFIG_NUMBER(key, field, fallback, low, high, help) uint64_t field;
#define CONFIG_BYTES(key, field, fallback, low, high, help) uint64_t field;
#define CONFIG_TIME(key, field, fallback, low, high, help) int64_t field;
#define CONFIG_FLAG(key, field, fallback, help) bool field;
#define CONFIG_CHOICE(key, field, type, fallback, words, help) enum type field;
#define CONFIG_LIST(key, field, fallback, help)
#include "config/settings.def"
    struct str blobs_bucket; /* of `blobs`; empty: blobs are files */
    struct str blobs_prefix; /* of every key; empty, or ends with '/' */
};

/* Complaints are at most so many bytes: a buf with this maximum holds them all. */
#define CONFIG_COMPLAINTS_BYTES_MAX 40000

struct config_sources {
    /* Path of a YAML file, or NULL for none. --config among the arguments (the last one), else
     * HOLDFAST_CONFIG, is read instead of it. */
    const char *file;
    char *const *arguments; /* flags after the subcommand's name; "--" forms listed above */
    int n_arguments;
    char *const *environment; /* as environ; may be NULL */
};

/* Reads all sources and the files that secrets are in, applies defaults, checks each value and
 * those that must go together (TLS certificate with key, client_auth with client_ca, an address
 * that is not loopback while anonymous push is allowed, unless access.anonymous_push_anywhere is
 * set or tls.client_auth is required; the settings of the object store with each other). A list
 * that is given in one source replaces that of the sources below. Complaints name no secret.
 * Returns -1 with every complaint (up to some) in ret_complaints, one a line.
 * ret: initialised by this function on success; end with config_done. */
int config_load(const struct config_sources *sources, struct config *ret,
                struct buf *ret_complaints) MUST_CHECK;
/* Takes a zeroed one. */
void config_done(struct config *config);
/* Writes the settings in force as a commented YAML file that config_load would read back; except
 * that it has "********" for a secret or a password that was not given as file:PATH, which
 * config_load refuses. */
void config_print(const struct config *config, struct buf *out);
/* Writes the flags with their meaning and default, for --help. */
void config_print_flags(struct buf *out);
/* Whether an address is one whose forwarding headers are believed. IPv4-mapped IPv6 addresses are
 * looked at as IPv4. */
bool config_trusts(const struct config *config, const struct sockaddr *address);
/* Whether the access settings allow to listen there; for sockets that are handed over by the
 * service manager. config_load has checked the addresses of `listen`. */
bool config_may_listen(const struct config *config, const struct sockaddr *address);
/* Where blobs are in the object store: NUL-ended, borrowed from config. The prefix is empty or ends
 * with '/'. -1: they are files in the data folder. */
int config_s3_location(const struct config *config, struct str *ret_bucket,
                       struct str *ret_prefix) MUST_CHECK;
/* What x-amz-server-side-encryption says: "AES256", "aws:kms", or "" for none. static */
const char *config_s3_encryption(const struct config *config);

#endif
