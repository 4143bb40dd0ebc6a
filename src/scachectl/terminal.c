/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/terminal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define COLUMNS_DEFAULT 80
#define COLUMNS_MIN     40

bool terminal_is_there(void) {
        return isatty(STDOUT_FILENO) > 0;
}

size_t terminal_columns(void) {
        const char *variable = getenv("COLUMNS");
        unsigned long columns = variable ? strtoul(variable, NULL, 10) : 0;
        struct winsize size;

        if (columns == 0 && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0)
                columns = size.ws_col;
        if (columns == 0 || columns > 10000)
                columns = COLUMNS_DEFAULT;
        return MAX(columns, (unsigned long) COLUMNS_MIN);
}

static bool is_colourful(void) {
        const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");

        return terminal_is_there() && !(no_color && *no_color) && term && strcmp(term, "dumb") != 0;
}

const char *terminal_strong(void) {
        return is_colourful() ? "\033[1m" : "";
}

const char *terminal_plain(void) {
        return is_colourful() ? "\033[0m" : "";
}

static size_t escape(unsigned char c, char text[static 5]) {
        static const char names[] = { ['\n'] = 'n', ['\t'] = 't', ['\\'] = '\\' };

        if (c < sizeof(names) && names[c]) {
                text[0] = '\\';
                text[1] = names[c];
                return 2;
        }
        if (c >= 0x20 && c < 0x7f) {
                text[0] = (char) c;
                return 1;
        }
        return (size_t) snprintf(text, 5, "\\x%02x", c);
}

char *terminal_text(struct slice bytes, size_t max) {
        static const char dots[] = "...";
        size_t n = 0, whole = 0;
        char *text;

        text = malloc(MIN(bytes.size * 4, max) + sizeof(dots) + 4);
        if (!text)
                return NULL;

        for (size_t i = 0; i < bytes.size; i++) {
                char one[5];
                size_t size = escape((unsigned char) bytes.data[i], one);

                if (n + size > max) {
                        memcpy(text + whole, dots, sizeof(dots));
                        return text;
                }
                memcpy(text + n, one, size);
                n += size;
                /* The last index at which the dots still fit. */
                if (n + sizeof(dots) - 1 <= max)
                        whole = n;
        }

        text[n] = 0;
        return text;
}

struct terminal_short terminal_time(uint64_t us) {
        static const struct {
                uint64_t us;
                const char *name;
        } units[] = {
                { 24 * 3600 * USEC_PER_SEC, "d" },
                { 3600 * USEC_PER_SEC, "h" },
                { 60 * USEC_PER_SEC, "min" },
        };
        struct terminal_short ret;

        for (size_t i = 0; i < ELEMENTSOF(units); i++)
                if (us >= 2 * units[i].us) {
                        (void) snprintf(ret.text, sizeof(ret.text), "%" PRIu64 "%s", us / units[i].us,
                                units[i].name);
                        return ret;
                }

        if (us >= USEC_PER_SEC)
                (void) snprintf(ret.text, sizeof(ret.text), "%" PRIu64 ".%" PRIu64 "s", us / USEC_PER_SEC,
                        us % USEC_PER_SEC / (USEC_PER_SEC / 10));
        else
                (void) snprintf(ret.text, sizeof(ret.text), "%" PRIu64 "ms", us / USEC_PER_MSEC);
        return ret;
}

struct terminal_short terminal_bytes(uint64_t bytes) {
        static const char *const names[] = { "KiB", "MiB", "GiB" };
        struct terminal_short ret;
        uint64_t unit = 1024;
        size_t i = 0;

        if (bytes < 1024) {
                (void) snprintf(ret.text, sizeof(ret.text), "%" PRIu64 " B", bytes);
                return ret;
        }

        for (; i + 1 < ELEMENTSOF(names) && bytes / unit >= 1024; i++)
                unit *= 1024;
        (void) snprintf(ret.text, sizeof(ret.text), "%" PRIu64 ".%" PRIu64 " %s", bytes / unit,
                bytes % unit * 10 / unit, names[i]);
        return ret;
}
