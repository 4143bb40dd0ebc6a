/* settings: what an administrator may choose, read from main.cf, scached.conf and -o */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/cleanup.h"

#ifndef SETTINGS_CONFIG_DIRECTORY
#define SETTINGS_CONFIG_DIRECTORY "/etc/scached"
#endif

/* Bounds of what is read. Text past them is an error that says so, or, in a main.cf, a line passed over. */
#define SETTINGS_FILE_MAX     (1024u * 1024u) /* bytes in a file */
#define SETTINGS_LINE_MAX     (256u * 1024u)  /* bytes in a line with all its continuation lines */
#define SETTINGS_VALUE_MAX    4096u           /* bytes in a value of ours, before and after $name */
#define SETTINGS_EXPAND_DEPTH 100u   /* $name inside $name inside ... (Postfix has the same bound) */
#define SETTINGS_EXPAND_STEPS 10000u /* $name in one value, those inside of others counted too */
#define SETTINGS_REPORTS_MAX  100u   /* sentences for one load, the last of which says that more follow */

/* Bounds of single values. */
#define SETTINGS_TIME_MAX_SEC UINT64_C(2147483647) /* as in Postfix */
#define SETTINGS_COUNT_MAX    UINT64_C(16777216)   /* connections, agents */
#define SETTINGS_MEMORY_MIN   (UINT64_C(1) << 20)
#define SETTINGS_MEMORY_MAX   (UINT64_C(1) << 44)
#define SETTINGS_REQUEST_MIN  UINT64_C(4096)
#define SETTINGS_REQUEST_MAX  (UINT64_C(16) << 20)
#define SETTINGS_NAME_MAX     64u  /* bytes in syslog_name */
#define SETTINGS_FAREWELL_MAX 512u /* bytes in a farewell: the longest command line that SMTP knows */

/* One parameter as it came out, for --check and for the man page's test. */
struct settings_row {
        const char *name;
        const char *fallback; /* its default, in main.cf syntax; NULL where it is read-only */
        char *value;          /* in effect, in main.cf syntax, every $name expanded */
        char *source;         /* "default", "PATH:LINE", "-o", "-c" or "read-only" */
};

/* Read-only once loaded. Times are in µs. */
struct settings {
        uint64_t ttl_limit_us;
        uint64_t status_update_time_us;
        uint64_t max_idle_us; /* 0: never leave on idle */
        uint64_t ipc_timeout_us;
        uint64_t daemon_timeout_us;

        uint64_t connection_limit;   /* 0: what the descriptor limit allows */
        uint64_t memory_limit;       /* bytes; 0: no bound but the machine's */
        uint64_t agent_limit;        /* 0: what the descriptor limit allows */
        uint64_t request_size_limit; /* bytes, never 0 and never above memory_limit */

        bool share_between_users;
        char *farewell; /* NUL-free and NUL-terminated; empty: none */
        size_t farewell_size;

        int syslog_facility; /* LOG_MAIL and the like */
        char *syslog_name;   /* empty: not set */
        char *identifier; /* what journal lines are marked with: scached, or syslog_name/scache as in Postfix */
        char *config_directory;

        struct settings_row *rows; /* every parameter, sorted by name */
        size_t n_rows;
};

struct settings_request {
        const char *config_directory; /* NULL: SETTINGS_CONFIG_DIRECTORY, which then need not exist */
        const char *const *overrides; /* "name=value" of each -o, in order */
        size_t n_overrides;
        pid_t process_id; /* for $process_id */
};

/* A file's text in memory. */
struct settings_text {
        const char *path; /* how messages call it */
        const char *data;
        size_t size;
};

/* Told one sentence for each thing that is wrong. priority is LOG_ERR or LOG_WARNING. The message is printable
 * ASCII in one line and belongs to the caller of the function. */
typedef void (*settings_report_fn)(void *userdata, int priority, const char *message);

/* Read main.cf, then scached.conf in the request's folder, then its overrides; later ones win. Either file may be
 * missing. Everything that is wrong is reported (report may be NULL) before this fails. On success *ret belongs to
 * the caller; on failure it is left alone, so that a reload can go on with what it has. Returns 0, -EINVAL for
 * a bad value or file, -ENOMEM, or the negative errno of the first file that could not be read. */
int settings_load(const struct settings_request *request, settings_report_fn report, void *userdata,
        struct settings **ret);

/* The same with the files' text at hand (NULL: no such file); touches no file. */
int settings_load_texts(const struct settings_request *request, const struct settings_text *main_cf,
        const struct settings_text *scached_conf, settings_report_fn report, void *userdata,
        struct settings **ret);

/* Free the settings and all they hold. NULL is fine. */
void settings_free(struct settings *settings);
DEFINE_CLEANUP(struct settings *, settings_free);
