/* Manifests and blobs by digest, as they were looked up lately. What a digest names never changes;
 * that a repository has it does, and then every node is told (db_notify) in the transaction that
 * changes it. A node that is not told in time does not trust what it has.
 *
 * Key: "<repository>@<digest>", with a letter for the kind before it. Values: of a manifest its
 * media type, a zero byte and its bytes; of a blob its size in decimal, a zero byte and its
 * location. */
#include "registry/registry_int.h"

static struct str key_of(struct call *call, char kind, const struct oci_name *name,
                         const struct oci_digest *digest)
{
    return str_printf(&call->arena, "%c" STR_FMT "@" STR_FMT, kind, STR_ARG(name->text),
                      STR_ARG(oci_digest_text(&call->arena, digest)));
}

static bool find(struct call *call, struct registry *registry, char kind,
                 const struct oci_name *name, const struct oci_digest *digest, struct str *ret,
                 struct known_ticket *ret_ticket)
{
    struct str key = key_of(call, kind, name, digest);
    if (db_is_told(registry->db) && cache_find(registry->known, key, &call->arena, ret))
        return true;
    if (ret_ticket != NULL)
        *ret_ticket = (struct known_ticket){key, cache_ticket(registry->known, key)};
    return false;
}

bool known_manifest(struct call *call, struct registry *registry, const struct oci_name *name,
                    const struct oci_digest *digest, struct registry_manifest *ret,
                    struct known_ticket *ret_ticket)
{
    struct str value;
    if (!find(call, registry, 'm', name, digest, &value, ret_ticket))
        return false;
    struct str media_type = str_cut(&value, '\0');
    *ret = (struct registry_manifest){
        .digest = oci_digest_text(&call->arena, digest),
        .media_type = media_type,
        .size = value.n,
        .content = value,
    };
    return true;
}

void known_put_manifest(struct call *call, struct registry *registry,
                        const struct known_ticket *ticket, const struct registry_manifest *manifest)
{
    size_t head = manifest->media_type.n + 1;
    char *value = arena_alloc(&call->arena, head + manifest->content.n);
    memcpy(value, manifest->media_type.p, head - 1);
    value[head - 1] = '\0';
    memcpy(value + head, manifest->content.p, manifest->content.n);
    cache_put(registry->known, ticket->key, (struct str){value, head + manifest->content.n},
              ticket->number);
}

bool known_blob(struct call *call, struct registry *registry, const struct oci_name *name,
                const struct oci_digest *digest, struct registry_blob *ret,
                struct known_ticket *ret_ticket)
{
    struct str value;
    if (!find(call, registry, 'b', name, digest, &value, ret_ticket))
        return false;
    struct str size_text = str_cut(&value, '\0');
    uint64_t size;
    require(str_eat_u64(&size_text, INT64_MAX, &size)); /* put there by known_put_blob */
    *ret = (struct registry_blob){.digest = *digest, .size = size, .location = value};
    return true;
}

void known_put_blob(struct call *call, struct registry *registry, const struct known_ticket *ticket,
                    const struct registry_blob *blob)
{
    struct str value = str_printf(&call->arena, "%llu%c" STR_FMT, (unsigned long long)blob->size,
                                  '\0', STR_ARG(blob->location));
    cache_put(registry->known, ticket->key, value, ticket->number);
}

int known_forget(struct call *call, const struct oci_name *name, const struct oci_digest *digest)
{
    struct str key = key_of(call, '-', name, digest);
    return db_notify(call->db, str_from_at(key, 1), &call->err);
}

static void forget(struct registry *registry, struct arena *arena, struct str what)
{
    cache_forget(registry->known, str_printf(arena, "m" STR_FMT, STR_ARG(what)));
    cache_forget(registry->known, str_printf(arena, "b" STR_FMT, STR_ARG(what)));
}

void known_forget_here(struct call *call, struct registry *registry, const struct oci_name *name,
                       const struct oci_digest *digest)
{
    forget(registry, &call->arena, str_from_at(key_of(call, '-', name, digest), 1));
}

void known_told(void *context, struct str payload)
{
    struct registry *registry = context;
    auto_arena arena = {0};
    if (payload.p == NULL)
        cache_forget_all(registry->known);
    else
        forget(registry, &arena, payload);
}
