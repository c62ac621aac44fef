/* Addresses: where to listen, and whose forwarding headers are believed. */
#include "config/config_int.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* An IPv4 or IPv6 address without a port; IPv4-mapped ones (RFC 4291, section 2.5.5.2) are turned
 * into IPv4. */
struct address {
    int family;
    uint8_t bytes[16];
    bool mapped; /* was written as IPv4-mapped */
};

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
#define MAPPED_BITS 96

static void unmap(struct address *address)
{
    if (address->family != AF_INET6 ||
        memcmp(address->bytes, mapped_prefix, sizeof(mapped_prefix)) != 0)
        return;
    memmove(address->bytes, address->bytes + sizeof(mapped_prefix), 4);
    address->family = AF_INET;
    address->mapped = true;
}

static bool address_parse(struct str text, struct address *ret)
{
    char copy[INET6_ADDRSTRLEN];
    if (text.n == 0 || text.n >= sizeof(copy) || memchr(text.p, '\0', text.n) != NULL)
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = '\0';

    struct address address = {.family = AF_INET};
    if (inet_pton(AF_INET, copy, address.bytes) != 1) {
        address.family = AF_INET6;
        if (inet_pton(AF_INET6, copy, address.bytes) != 1)
            return false;
        unmap(&address);
    }
    *ret = address;
    return true;
}

static bool address_of_socket(const struct sockaddr *socket, struct address *ret)
{
    struct address address = {.family = socket->sa_family};
    if (socket->sa_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, socket, sizeof(in));
        memcpy(address.bytes, &in.sin_addr, 4);
    } else if (socket->sa_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, socket, sizeof(in6));
        memcpy(address.bytes, &in6.sin6_addr, 16);
        unmap(&address);
    } else {
        return false;
    }
    *ret = address;
    return true;
}

static bool is_loopback(const struct address *address)
{
    static const uint8_t one[16] = {[15] = 1};
    if (address->family == AF_INET)
        return address->bytes[0] == 127;
    return memcmp(address->bytes, one, sizeof(one)) == 0;
}

/* ---- listen ---- */

static void listen_fill(struct config_listen *listen, const struct address *address, uint16_t port)
{
    if (address->family == AF_INET) {
        struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
        memcpy(&in.sin_addr, address->bytes, 4);
        memcpy(&listen->address, &in, sizeof(in));
        listen->address_bytes = sizeof(in);
    } else {
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
        memcpy(&in6.sin6_addr, address->bytes, 16);
        memcpy(&listen->address, &in6, sizeof(in6));
        listen->address_bytes = sizeof(in6);
    }
    listen->loopback = is_loopback(address);
}

/* NULL, or what is wrong and what to write instead. static */
static const char *listen_parse(struct str text, struct config_listen *ret)
{
    size_t colon = text.n; /* just behind the last one */
    while (colon > 0 && text.p[colon - 1] != ':')
        colon--;
    if (colon == 0)
        return "write ADDRESS:PORT, as 127.0.0.1:5000";
    struct str host = str_first(text, colon - 1);
    struct str port_text = str_from_at(text, colon);

    bool bracketed = host.n >= 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    if (bracketed)
        host = str_first(str_from_at(host, 1), host.n - 2);
    else if (str_find(host, ':') < host.n)
        return "write an IPv6 address in brackets and with a port, as [::1]:5000";
    if (host.n == 0)
        return "write 0.0.0.0:PORT or [::]:PORT to listen on all addresses";
    uint64_t port;
    if (!str_eat_u64(&port_text, UINT16_MAX, &port) || port_text.n > 0)
        return "the port is a number from 0 to 65535";

    struct address address;
    if (str_eq(host, STR("localhost")) && !bracketed)
        host = STR("127.0.0.1");
    if (!address_parse(host, &address))
        return bracketed ? "between brackets stands an IPv6 address, as [::1]:5000"
                         : "host names are not looked up: write an address of this machine, "
                           "0.0.0.0 for all of them, or localhost";
    if (address.family == AF_INET && bracketed)
        return "write an IPv4 address without brackets and not as ::ffff:, as 127.0.0.1:5000";
    listen_fill(ret, &address, (uint16_t)port); /* eaten with that maximum */
    return NULL;
}

static int listen_add(struct config *config, struct str text, struct err *err)
{
    struct config_listen listen = {.address_bytes = 0};
    const char *hint = listen_parse(text, &listen);
    if (hint != NULL)
        return err_set(err, ERR_INVALID, "%s is not an address to listen on: %s",
                       config_quote(&config->arena, text), hint);
    bool any_port = str_ends(text, STR(":0"));
    for (size_t i = 0; i < config->n_listen && !any_port; i++)
        if (config->listen[i].address_bytes == listen.address_bytes &&
            memcmp(&config->listen[i].address, &listen.address, listen.address_bytes) == 0)
            return err_set(err, ERR_INVALID, "%s is given twice",
                           config_quote(&config->arena, text));
    listen.text = str_dup(&config->arena, text);
    config->listen[config->n_listen++] = listen;
    return 0;
}

static void listen_print(const struct config *config, size_t i, struct buf *out)
{
    buf_add_json(out, config->listen[i].text);
}

const struct setting_list config_list_listen = {
    .placeholder = "ADDRESS:PORT",
    .count_offset = offsetof(struct config, n_listen),
    .max = CONFIG_LISTEN_MAX,
    .add = listen_add,
    .print = listen_print,
};

bool config_may_listen(const struct config *config, const struct sockaddr *address)
{
    struct address parsed;
    return config->access_anonymous != CONFIG_ANONYMOUS_PUSH ||
           config->access_anonymous_push_anywhere ||
           config->tls_client_auth == CONFIG_CLIENT_AUTH_REQUIRED || /* nobody is anonymous */
           address->sa_family == AF_UNIX ||
           (address_of_socket(address, &parsed) && is_loopback(&parsed));
}

/* ---- proxy.trusted ---- */

/* The first `bits` of two addresses are the same. */
static bool same_prefix(const uint8_t *a, const uint8_t *b, unsigned bits)
{
    unsigned whole = bits / 8;
    if (memcmp(a, b, whole) != 0)
        return false;
    unsigned mask = 0xFF00U >> bits % 8 & 0xFF;
    return mask == 0 || ((a[whole] ^ b[whole]) & mask) == 0;
}

static unsigned bits_of(int family)
{
    return family == AF_INET ? 32 : 128;
}

static void network_print(const struct config_network *network, struct buf *out)
{
    char text[INET6_ADDRSTRLEN];
    require(inet_ntop(network->family, network->bytes, text, sizeof(text)) != NULL);
    if (network->bits < bits_of(network->family))
        buf_printf(out, "\"%s/%u\"", text, network->bits);
    else
        buf_printf(out, "\"%s\"", text);
}

/* The network that an address lies in: the bits of the host are cleared. */
static struct config_network network_of(const struct address *address, unsigned bits)
{
    struct config_network network = {.family = address->family, .bits = bits};
    memcpy(network.bytes, address->bytes, bits_of(address->family) / 8);
    for (unsigned bit = bits; bit < bits_of(address->family); bit++)
        network.bytes[bit / 8] &= (uint8_t) ~(0x80U >> bit % 8);
    return network;
}

/* "10.0.0.0/8", "192.0.2.7", "fd00::/8". RFC 4632, section 3.1; RFC 4291, section 2.3. */
static bool network_parse(struct str text, struct address *ret_address, unsigned *ret_bits)
{
    struct address address;
    bool has_bits = str_find(text, '/') < text.n;
    if (!address_parse(str_cut(&text, '/'), &address))
        return false;
    unsigned mapped = address.mapped ? MAPPED_BITS : 0;
    uint64_t bits = bits_of(address.family) + mapped;
    if (has_bits && (!str_eat_u64(&text, bits, &bits) || text.n > 0 || bits < mapped))
        return false;
    *ret_address = address;
    *ret_bits = (unsigned)bits - mapped; /* at most 128 */
    return true;
}

static int trusted_add(struct config *config, struct str text, struct err *err)
{
    struct address address;
    unsigned bits;
    if (!network_parse(text, &address, &bits))
        return err_set(err, ERR_INVALID, "%s is not an address or a network, as 10.0.0.0/8",
                       config_quote(&config->arena, text));
    struct config_network network = network_of(&address, bits);
    if (memcmp(network.bytes, address.bytes, bits_of(address.family) / 8) != 0) {
        auto_buf meant = BUF_INIT(80);
        network_print(&network, &meant);
        return err_set(err, ERR_INVALID,
                       "%s names an address and not a network; did you mean %s, or %s without /%u?",
                       config_quote(&config->arena, text), meant.p,
                       config_quote(&config->arena, str_first(text, str_find(text, '/'))), bits);
    }
    config->trusted[config->n_trusted++] = network;
    return 0;
}

static void trusted_print(const struct config *config, size_t i, struct buf *out)
{
    network_print(&config->trusted[i], out);
}

const struct setting_list config_list_trusted = {
    .placeholder = "NETWORK",
    .count_offset = offsetof(struct config, n_trusted),
    .max = CONFIG_TRUSTED_MAX,
    .may_be_empty = true,
    .add = trusted_add,
    .print = trusted_print,
};

bool config_trusts(const struct config *config, const struct sockaddr *address)
{
    struct address client;
    if (!address_of_socket(address, &client))
        return false;
    for (size_t i = 0; i < config->n_trusted; i++) {
        const struct config_network *network = &config->trusted[i];
        if (network->family == client.family &&
            same_prefix(network->bytes, client.bytes, network->bits))
            return true;
    }
    return false;
}
