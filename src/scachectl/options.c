/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/options.h"

#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/clock.h"

const struct option_text option_texts[_OPTION_MAX] = {
        [OPTION_JSON] = { "json", NULL, "print JSON" },
        [OPTION_FORMAT] = { "format", "FORMAT", "openmetrics (the default), or prometheus" },
        [OPTION_OUTPUT] = { "output", "FILE", "replace FILE instead of printing" },
        [OPTION_BINDINGS] = { "bindings", NULL, "list bindings instead of connections" },
        [OPTION_USER] = { "user", "USER", "only those of this user (a name or a number)" },
        [OPTION_ENDPOINT] = { "endpoint", "GLOB", "only those of endpoints that match" },
        [OPTION_DESTINATION] = { "destination", "GLOB", "only those of destinations that match" },
        [OPTION_BY] = { "by", "WHAT", "lookups (the default), misses, or parked" },
        [OPTION_INTERVAL] = { "interval", "SECONDS", "time between two updates (default: 1)" },
        [OPTION_COUNT] = { "count", "N", "stop after N updates (default: never)" },
        [OPTION_TTL] = { "ttl", "SECONDS", "time to live (default and maximum: scached's limit)" },
        [OPTION_PROPERTY] = { "property", "TEXT", "text for the agent that finds it" },
        [OPTION_FAREWELL] = { "farewell", "TEXT", "bytes to send before scached closes it (\\r\\n: CR LF)" },
        [OPTION_EPOCH] = { "epoch", "TEXT", "epoch to save or search in (default: none)" },
        [OPTION_FD] = { "fd", "N", "descriptor to park (default: 0, standard input)" },
        [OPTION_CONFIG_DIRECTORY] = { "config-directory", "DIR",
                "only the instance whose main.cf is in DIR" },
        [OPTION_DESTINATIONS] = { "destinations", "FILE", "file of destinations (default: standard input)" },
        [OPTION_SELF] = { "self", "HOST", "name of this host in the list (default: its own)" },
        [OPTION_TRANSPORT] = { "transport", "NAME",
                "transport to the other hosts (default: " FLEET_TRANSPORT ")" },
        [OPTION_PORT] = { "port", "N", "port of the other hosts (default: 10625)" },
        [OPTION_LEGACY] = { "legacy", NULL, "expect no greeting (sockets for Postfix before 3.6)" },
        [OPTION_CONTROL] = { "control", "PATH", "control socket (default: " CONTROL_PATH ")" },
        [OPTION_NATIVE] = { "native", "PATH", "agents' socket (default: " SERVICE_PATH ")" },
        [OPTION_SOCKET] = { "socket", "PATH", "another name for --control or --native" },
        [OPTION_TIMEOUT] = { "timeout", "SECONDS", "longest wait for an answer (default: 5)" },
};

/* Read a number of seconds, with or without a fraction, into µs. */
static int parse_time(const char *text, uint64_t *ret_us) {
        char *end;
        double seconds;

        seconds = strtod(text, &end);
        if (end == text || *end || !(seconds >= 1e-6 && seconds <= 1e9))
                return -EINVAL;

        *ret_us = (uint64_t) (seconds * (double) USEC_PER_SEC);
        return 0;
}

static int parse_number(const char *text, unsigned max, unsigned *ret) {
        unsigned long value;
        char *end;

        errno = 0;
        value = strtoul(text, &end, 10);
        if (end == text || *end || errno != 0 || *text == '-' || value > max)
                return -EINVAL;

        *ret = (unsigned) value;
        return 0;
}

static int parse_user(const char *text, unsigned *ret) {
        struct passwd *passwd = getpwnam(text);

        if (!passwd)
                return parse_number(text, UINT_MAX, ret);

        *ret = passwd->pw_uid;
        return 0;
}

/* Find a word among NAMES. */
static int parse_word(const char *text, const char *const names[], unsigned n, unsigned *ret) {
        for (unsigned i = 0; i < n; i++)
                if (strcmp(text, names[i]) == 0) {
                        *ret = i;
                        return 0;
                }

        return -EINVAL;
}

static int parse_format(const char *text, enum metrics_format *ret) {
        static const char *const names[_METRICS_MAX] = {
                [METRICS_OPENMETRICS] = "openmetrics",
                [METRICS_PROMETHEUS] = "prometheus",
        };

        return parse_word(text, names, ELEMENTSOF(names), ret);
}

static int parse_order(const char *text, enum ranking_order *ret) {
        static const char *const names[_RANKING_MAX] = {
                [RANKING_BY_LOOKUPS] = "lookups",
                [RANKING_BY_MISSES] = "misses",
                [RANKING_BY_PARKED] = "parked",
        };

        return parse_word(text, names, ELEMENTSOF(names), ret);
}

/* Replace \r, \n and \\ in place: lines of mail protocols end in CR LF, which is hard to type. */
static void unescape(char *text) {
        char *to = text;

        for (; *text; text++) {
                if (*text == '\\' && text[1] && strchr("rn\\", text[1])) {
                        text++;
                        *to++ = *text == 'r' ? '\r' : *text == 'n' ? '\n' : '\\';
                } else
                        *to++ = *text;
        }
        *to = 0;
}

int options_set(struct options *options, enum option_id id, char *value) {
        unsigned number;
        int r = 0;

        switch (id) {
        case OPTION_BINDINGS:
                options->bindings = true;
                break;
        case OPTION_CONFIG_DIRECTORY:
                options->config_directory = value;
                break;
        case OPTION_CONTROL:
                options->control_path = value;
                break;
        case OPTION_COUNT:
                r = parse_number(value, UINT_MAX, &options->count);
                if (options->count == 0)
                        r = -EINVAL;
                break;
        case OPTION_DESTINATION:
                options->destination = value;
                break;
        case OPTION_DESTINATIONS:
                options->destinations = value;
                break;
        case OPTION_ENDPOINT:
                options->endpoint = value;
                break;
        case OPTION_EPOCH:
                options->epoch = value;
                break;
        case OPTION_FAREWELL:
                unescape(value);
                options->farewell = value;
                break;
        case OPTION_FD:
                r = parse_number(value, INT_MAX, &number);
                if (r >= 0)
                        options->fd = (int) number;
                break;
        case OPTION_FORMAT:
                r = parse_format(value, &options->format);
                break;
        case OPTION_BY:
                r = parse_order(value, &options->order);
                break;
        case OPTION_INTERVAL:
                options->has_interval = true;
                r = parse_time(value, &options->interval_us);
                break;
        case OPTION_JSON:
                options->json = true;
                break;
        case OPTION_LEGACY:
                options->legacy = true;
                break;
        case OPTION_NATIVE:
                options->service_path = value;
                break;
        case OPTION_OUTPUT:
                options->output = value;
                if (!*value)
                        r = -EINVAL;
                break;
        case OPTION_PORT:
                r = parse_number(value, UINT16_MAX, &options->port);
                if (options->port == 0)
                        r = -EINVAL;
                break;
        case OPTION_PROPERTY:
                options->property = value;
                break;
        case OPTION_SELF:
                options->self = value;
                break;
        case OPTION_SOCKET:
                options->control_path = options->service_path = value;
                break;
        case OPTION_TIMEOUT:
                options->has_timeout = true;
                r = parse_time(value, &options->timeout_us);
                break;
        case OPTION_TRANSPORT:
                options->transport = value;
                if (!*value || value[strcspn(value, ": \t\n")])
                        r = -EINVAL;
                break;
        case OPTION_TTL:
                r = parse_number(value, INT_MAX, &options->ttl_s);
                if (options->ttl_s == 0)
                        r = -EINVAL;
                break;
        case OPTION_USER:
                options->has_user = true;
                r = parse_user(value, &options->user);
                break;
        case _OPTION_MAX:
                return -EINVAL;
        }
        return r;
}
