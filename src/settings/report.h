/* settings: one clear sentence for each thing that is wrong */
#pragma once

#include "base/cleanup.h"

/* So many sentences come from one load, the last of which says that more follow. */
#define SETTINGS_REPORTS_MAX 100u

/* Told one sentence for each thing that is wrong. priority is LOG_ERR or LOG_WARNING. The message is printable
 * ASCII in one line and belongs to the caller of the function. */
typedef void (*settings_report_fn)(void *userdata, int priority, const char *message);

struct settings_reporter {
        settings_report_fn report; /* may be NULL */
        void *userdata;
        unsigned n_errors;
        unsigned n_reports;
};

/* Where a value was written down. */
struct settings_place {
        const char *path; /* or "-o", or "default" */
        unsigned line;    /* 0: no lines there */
};

/* Say "PATH:LINE: NAME = VALUE: what is wrong", leaving out a value that is NULL, and what is empty, NULL or 0 before it. Bytes that are not printable ASCII
 * become \xHH, long values are cut. LOG_ERR counts as an error even where it is not told any more. */
void settings_report(struct settings_reporter *reporter, int priority, struct settings_place place,
        const char *name, const char *value, const char *format, ...) _printf_(6, 7);
