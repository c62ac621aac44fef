#include "base/call.h"

#include "base/mem.h"

#include <stdio.h>
#include <sys/random.h>

void call_init(struct call *call)
{
    *call = (struct call){0};
    uint64_t id = 0;
    require(getrandom(&id, sizeof(id), 0) == (ssize_t)sizeof(id));
    (void)snprintf(call->id, sizeof(call->id), "%016llx", (unsigned long long)id);
}

void call_done(struct call *call)
{
    require(call->db == NULL);
    arena_done(&call->arena);
}
