#include "api/api_int.h"

static bool anonymous_may(enum config_anonymous allowed, enum action action)
{
    switch (action) {
    case ACTION_NONE:
        return true;
    case ACTION_PING:
    case ACTION_PULL:
        return allowed >= CONFIG_ANONYMOUS_PULL;
    case ACTION_PUSH:
    case ACTION_DELETE:
        return allowed >= CONFIG_ANONYMOUS_PUSH;
    }
    return false;
}

int access_decide(struct request *request, enum action action)
{
    const struct config *config = request->api->config;
    struct err *err = &request->call->err;
    if (request->x->certified || action == ACTION_NONE)
        return 0;
    if (config->tls_client_auth == CONFIG_CLIENT_AUTH_REQUIRED)
        return err_set(err, ERR_DENIED, "this registry asks for a client certificate");
    if (anonymous_may(config->access_anonymous, action))
        return 0;
    return err_set(err, ERR_UNAUTHENTICATED,
                   "anonymous clients may not %s here; see the setting access.anonymous",
                   action == ACTION_PUSH     ? "push"
                   : action == ACTION_DELETE ? "delete"
                                             : "pull");
}
