/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: the parameters, their defaults, and their valid values */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/slice.h"

/* The limits of values. */
#define SETTINGS_COUNT_MAX    UINT64_C(16777216) /* connections, agents */
#define SETTINGS_MEMORY_MIN   (UINT64_C(1) << 20)
#define SETTINGS_MEMORY_MAX   (UINT64_C(1) << 44)
#define SETTINGS_REQUEST_MIN  UINT64_C(4096)
#define SETTINGS_REQUEST_MAX  (UINT64_C(16) << 20)
#define SETTINGS_NAME_MAX     64u  /* bytes in syslog_name */
#define SETTINGS_FAREWELL_MAX 512u /* bytes in a farewell: the longest command line that SMTP knows */

/* A parameter and its value in effect, for --check and for the test of the man page. */
struct settings_row {
        const char *name;
        const char *fallback; /* its default, in main.cf syntax; NULL if it is read-only */
        char *value;          /* in effect, in main.cf syntax, every $name expanded */
        char *source;         /* "default", "PATH:LINE", "-o", "-c" or "read-only" */
};

/* Read-only once loaded. Times are in µs. */
struct settings {
        uint64_t ttl_limit_us;
        uint64_t status_update_time_us;
        uint64_t max_idle_us; /* 0: never exit when idle */
        uint64_t ipc_timeout_us;
        uint64_t daemon_timeout_us;

        uint64_t connection_limit;   /* 0: as many as the descriptor limit allows */
        uint64_t memory_limit;       /* bytes; 0: no limit but the machine's */
        uint64_t history_limit;      /* labels; 0: nothing is remembered */
        uint64_t agent_limit;        /* 0: as many as the descriptor limit allows */
        uint64_t agent_memory_limit; /* bytes; 0: no limit but the machine's */
        uint64_t request_size_limit; /* bytes, never 0 and never above memory_limit */

        bool share_between_users;
        bool epochs; /* agents of Postfix find only what was parked under their configuration */
        char *postfix_directories; /* where to look for it, one or more, with blanks or commas between */
        char *farewell;            /* NUL-free and NUL-terminated; empty: none */
        size_t farewell_size;

        int syslog_facility; /* LOG_MAIL and the like */
        char *syslog_name;   /* empty: not set */
        char *identifier; /* of the statistics in the journal: scached, or syslog_name/scache as in Postfix */
        char *config_directory;

        struct settings_row *rows; /* every parameter, sorted by name */
        size_t n_rows;
};

enum settings_kind {
        SETTINGS_READ_ONLY,
        SETTINGS_TIME,
        SETTINGS_COUNT,
        SETTINGS_SIZE,
        SETTINGS_BOOL,
        SETTINGS_FACILITY,
        SETTINGS_NAME,
        SETTINGS_FAREWELL,
        SETTINGS_PATHS,
};

struct settings_parameter {
        const char *name;
        const char *fallback; /* the default value; NULL if it is read-only */
        enum settings_kind kind;
        size_t offset; /* of numbers and booleans in struct settings */
        bool zero;     /* 0 is valid, whatever the minimum */
        uint64_t minimum;
        uint64_t maximum;
};

#define SETTINGS_PARAMETERS 21

/* Sorted by name. */
extern const struct settings_parameter settings_parameters[SETTINGS_PARAMETERS];

#define SETTINGS_EXPECTED_MAX 192

/* Return the parameter with this name, or NULL. */
const struct settings_parameter *settings_parameter_find(struct slice name);

/* Return the parameter that a wrong name probably means, or NULL. */
const struct settings_parameter *settings_parameter_guess(const char *name);

/* Parse an expanded value and put it into the settings. Returns 0, -ENOMEM, or -EINVAL with the expected value in words;
 * EXPECTED has room for SETTINGS_EXPECTED_MAX bytes. */
int settings_parameter_set(const struct settings_parameter *parameter, const char *text,
        struct settings *settings, char *expected);
