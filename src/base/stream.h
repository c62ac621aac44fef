/* Bytes that arrive over time, from another machine or from somebody who is still writing them.
 * Reading never waits: who finds nothing is told when there is more. One reader; the teller is on
 * any thread. */
#ifndef HOLDFAST_BASE_STREAM_H
#define HOLDFAST_BASE_STREAM_H

#include <stddef.h>
#include <sys/types.h>

/* What stream_read returns besides a number of bytes. */
enum {
    STREAM_LATER = 0,   /* nothing yet; `ready` is called once when that changes */
    STREAM_END = -1,    /* all of it was read */
    STREAM_FAILED = -2, /* there will be no more, and there should be; it is in the log already */
};

struct stream {
    const struct stream_kind *kind; /* static */
};
struct stream_kind {
    ssize_t (*read)(struct stream *stream, void *p, size_t max);
    void (*watch)(struct stream *stream, void (*ready)(void *context), void *context);
    void (*close)(struct stream *stream);
};

static inline ssize_t stream_read(struct stream *stream, void *p, size_t max)
{
    return stream->kind->read(stream, p, max);
}
/* Before the first read. `ready` must not wait, nor call back into the stream. */
static inline void stream_watch(struct stream *stream, void (*ready)(void *context), void *context)
{
    stream->kind->watch(stream, ready, context);
}
/* Afterwards `ready` is not called any more, nor running. Takes NULL. */
static inline void stream_close(struct stream *stream)
{
    if (stream != NULL)
        stream->kind->close(stream);
}

#endif
