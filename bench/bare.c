/* bare: the least that taking a blob costs. One thread, one connection at a time: read from the
 * socket, hash, write, fsync, answer. It checks nothing, remembers nothing and is no registry; it
 * is the ceiling that pushes are measured against.
 *
 *   bare PORT FOLDER    speaks just enough HTTP for `load push` */
#include "base/base.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#define PIECE_BYTES (256 * 1024)

static bool answer(int connection, const char *text)
{
    return send(connection, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);
}

/* The value of Content-Length, 0 without one. */
static uint64_t head_length(struct str head)
{
    while (head.n > 0) {
        struct str line = str_cut(&head, '\n');
        struct str name = str_cut(&line, ':');
        uint64_t length;
        line = str_trim(line);
        if (str_eq_nocase(name, STR("content-length")) && str_eat_u64(&line, INT64_MAX, &length))
            return length;
    }
    return 0;
}

static bool write_all(int fd, const char *p, size_t n)
{
    while (n > 0) {
        ssize_t written = write(fd, p, n);
        if (written <= 0)
            return false;
        p += written;
        n -= (size_t)written;
    }
    return true;
}

/* Takes `left` bytes, of which the first `have` stand in `piece`. */
static bool store(int connection, const char *path, char *piece, size_t have, uint64_t left)
{
    auto_fd fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct hash hash;
    uint8_t digest[HASH_BYTES_MAX];
    hash_init(&hash, HASH_SHA256);
    while (fd >= 0) {
        hash_update(&hash, piece, have);
        if (!write_all(fd, piece, have))
            break;
        left -= have;
        if (left == 0) {
            hash_final(&hash, digest);
            return fsync(fd) == 0 && answer(connection, "HTTP/1.1 201 Created\r\n"
                                                        "Content-Length: 0\r\n\r\n");
        }
        ssize_t got = recv(connection, piece, left < PIECE_BYTES ? (size_t)left : PIECE_BYTES, 0);
        if (got <= 0)
            break;
        have = (size_t)got;
    }
    return false;
}

static void serve(int connection, const char *folder, uint64_t *files, char *piece)
{
    size_t n = 0;
    ssize_t got;
    while ((got = recv(connection, piece + n, PIECE_BYTES - n, 0)) > 0) {
        n += (size_t)got;
        const char *end = memmem(piece, n, "\r\n\r\n", 4);
        if (end == NULL)
            continue;
        size_t head = (size_t)(end - piece) + 4;
        uint64_t length = head_length((struct str){piece, head});
        bool done;
        if (length == 0) {
            done = answer(connection, "HTTP/1.1 202 Accepted\r\nLocation: /upload\r\n"
                                      "Content-Length: 0\r\n\r\n");
        } else {
            char path[4096];
            (void)snprintf(path, sizeof(path), "%s/%ju", folder, (uintmax_t)(*files)++);
            memmove(piece, piece + head, n - head);
            done = store(connection, path, piece, n - head, length);
        }
        if (!done)
            return;
        n = 0;
    }
}

int main(int argc, char **argv)
{
    uint64_t port;
    uint64_t files = 0;
    int yes = 1;
    struct err err = {0};
    if (argc != 3 || str_to_u64(str_from(argv[1]), UINT16_MAX, &port, &err) < 0) {
        (void)fputs("wants PORT FOLDER\n", stderr);
        return 2;
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)port), /* bounded above */
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    auto_fd listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes)) < 0 ||
        bind(listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener, 16) < 0) {
        perror("could not listen");
        return 1;
    }
    auto_mem char *piece = mem_alloc(PIECE_BYTES);
    for (;;) {
        auto_fd connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection >= 0)
            serve(connection, argv[2], &files, piece);
    }
}
