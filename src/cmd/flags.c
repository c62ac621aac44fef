/* The flags of a subcommand that are not settings. */
#include "cmd/cmd.h"

/* Whether the argument is this flag; *ret_value: what stands behind its "=", p NULL without. */
static bool matches(struct str argument, const char *name, struct str *ret_value)
{
    struct str wanted = str_from(name);
    *ret_value = (struct str){0};
    if (str_eq(argument, wanted))
        return true;
    if (!str_starts(argument, wanted) || argument.p[wanted.n] != '=')
        return false;
    *ret_value = str_from_at(argument, wanted.n + 1);
    return true;
}

static int fail(const char *name, const char *why)
{
    (void)fprintf(stderr, "holdfast: %s %s; see holdfast help\n", name, why);
    return EXIT_USAGE;
}

/* Takes the flag at arguments[*i], and what belongs to it. */
static int take(const struct cmd_flag *flag, struct str value, int n, char **arguments, int *i)
{
    if (flag->is_set != NULL) {
        if (value.p != NULL)
            return fail(flag->name, "takes no value");
        *flag->is_set = true;
        return EXIT_DONE;
    }
    /* A flag behind it is no value: that one was forgotten. */
    if (value.p == NULL && (*i + 1 == n || str_starts(str_from(arguments[*i + 1]), STR("--"))))
        return fail(flag->name, "needs a value");
    *flag->value = value.p != NULL ? value.p : arguments[++*i];
    return EXIT_DONE;
}

int cmd_take_flags(const struct cmd_flag *flags, size_t n_flags, int *n_arguments, char **arguments)
{
    int kept = 0;
    for (int i = 0; i < *n_arguments; i++) {
        const struct cmd_flag *found = NULL;
        struct str value = {0};
        for (size_t f = 0; f < n_flags && found == NULL; f++)
            if (matches(str_from(arguments[i]), flags[f].name, &value))
                found = &flags[f];
        if (found == NULL)
            arguments[kept++] = arguments[i];
        else if (take(found, value, *n_arguments, arguments, &i) != EXIT_DONE)
            return EXIT_USAGE;
    }
    *n_arguments = kept;
    return EXIT_DONE;
}
