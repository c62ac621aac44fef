#include "cmd/cmd.h"

#define BAR_WIDTH 30
#define BAR_INTERVAL_US (CLOCK_SECOND_US / 10)

struct cmd_bar cmd_bar_new(void)
{
    return (struct cmd_bar){.is_shown = isatty(STDERR_FILENO)};
}

void cmd_bar_clear(const struct cmd_bar *bar)
{
    if (bar->is_shown)
        (void)fputs("\r\x1b[K", stderr);
}

bool cmd_bar_draw(struct cmd_bar *bar, const char *stage, uint64_t done, uint64_t total)
{
    if (!bar->is_shown || clock_since_us(bar->drawn) < BAR_INTERVAL_US)
        return false;
    bar->drawn = clock_mono();
    double part = total == 0 ? 0 : done < total ? (double)done / (double)total : 1;
    int filled = (int)(part * BAR_WIDTH);
    (void)fprintf(stderr, "\r\x1b[K%-10s [%.*s%*s] ", stage, filled,
                  "##############################", BAR_WIDTH - filled, "");
    if (total == 0)
        (void)fputs("  ?%", stderr);
    else
        (void)fprintf(stderr, "%3d%%", (int)(part * 100));
    return true;
}
