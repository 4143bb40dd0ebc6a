/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the options of all commands, and their values */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In the order in which help shows them. */
enum option_id {
        OPTION_JSON = 1,
        OPTION_FORMAT,
        OPTION_OUTPUT,
        OPTION_BINDINGS,
        OPTION_USER,
        OPTION_ENDPOINT,
        OPTION_DESTINATION,
        OPTION_BY,
        OPTION_INTERVAL,
        OPTION_COUNT,
        OPTION_TTL,
        OPTION_PROPERTY,
        OPTION_FAREWELL,
        OPTION_EPOCH,
        OPTION_FD,
        OPTION_CONFIG_DIRECTORY,
        OPTION_DESTINATIONS,
        OPTION_SELF,
        OPTION_TRANSPORT,
        OPTION_PORT,
        OPTION_LEGACY,
        OPTION_CONTROL,
        OPTION_NATIVE,
        OPTION_SOCKET,
        OPTION_TIMEOUT,
        _OPTION_MAX,
};

#define OPTION(id) (1u << OPTION_##id)

/* What commands on the control socket take, those on the agents' socket, and those of both that filter. */
#define OPTIONS_CONTROL (OPTION(JSON) | OPTION(CONTROL) | OPTION(SOCKET) | OPTION(TIMEOUT))
#define OPTIONS_AGENT   (OPTIONS_SERVICE | OPTION(EPOCH))
#define OPTIONS_SERVICE (OPTION(LEGACY) | OPTION(NATIVE) | OPTION(SOCKET) | OPTION(TIMEOUT))
#define OPTIONS_SAVE    (OPTIONS_AGENT | OPTION(TTL) | OPTION(PROPERTY))
#define OPTIONS_FILTER  (OPTION(USER) | OPTION(ENDPOINT) | OPTION(DESTINATION))

/* An option: "--name", or "--name=VALUE". */
struct option_text {
        const char *name;
        const char *value; /* what help calls it, NULL if there is none */
        const char *help;
};

extern const struct option_text option_texts[_OPTION_MAX];

enum metrics_format {
        METRICS_OPENMETRICS, /* 1.0 */
        METRICS_PROMETHEUS,  /* Prometheus' text format 0.0.4 */
        _METRICS_MAX,
};

enum ranking_order {
        RANKING_BY_LOOKUPS,
        RANKING_BY_MISSES,
        RANKING_BY_PARKED,
        _RANKING_MAX,
};

/* The values from the command line. The strings belong to main()'s arguments. */
struct options {
        const char *control_path;
        const char *service_path;
        const char *config_directory; /* of a Postfix instance; NULL: all instances */
        const char *destinations;     /* file of destinations; NULL: standard input */
        const char *self;             /* name of this host; NULL: what gethostname(2) says */
        const char *transport;        /* service of Postfix to the other hosts, and the port there */
        unsigned port;
        bool legacy; /* the service does not greet */
        bool json;
        enum metrics_format format;
        const char *output; /* file to replace; NULL: standard output */
        bool bindings;
        bool has_user;
        unsigned user;
        const char *endpoint; /* globs, or NULL */
        const char *destination;
        const char *property;
        const char *farewell;
        const char *epoch;
        unsigned ttl_s;
        int fd;
        bool has_timeout;
        uint64_t timeout_us;
        enum ranking_order order;
        bool has_interval;
        uint64_t interval_us;
        unsigned count; /* 0: no end */
        char **arguments;
        int n_arguments;
};

#define CONTROL_PATH "/run/scached/control.sock"
#define SERVICE_PATH "/run/scached/scached.sock"

/* As in scached(8). The port is nobody's. */
#define FLEET_TRANSPORT "fleet"
#define FLEET_PORT      10625

/* The defaults. The service limits the time to live. */
#define OPTIONS_INIT                                     \
        ((struct options){ .control_path = CONTROL_PATH, \
                .service_path = SERVICE_PATH,            \
                .transport = FLEET_TRANSPORT,            \
                .port = FLEET_PORT,                      \
                .ttl_s = INT32_MAX,                      \
                .timeout_us = 5000000,                   \
                .interval_us = 1000000 })

/* Set an option. VALUE is NULL for an option without one; --farewell is unescaped in place. Returns -EINVAL for a value
 * that the option cannot have. */
int options_set(struct options *options, enum option_id id, char *value);
