/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: reports each problem in one clear sentence */
#pragma once

#include "base/cleanup.h"

/* The most sentences from one load. The last one says that further problems are not shown. */
#define SETTINGS_REPORTS_MAX 100u

/* Called with one sentence for each problem. PRIORITY is LOG_ERR or LOG_WARNING. MESSAGE is printable ASCII in one line, and
 * valid during the call. */
typedef void (*settings_report_fn)(void *userdata, int priority, const char *message);

struct settings_reporter {
        settings_report_fn report; /* may be NULL */
        void *userdata;
        unsigned n_errors;
        unsigned n_reports;
};

/* The place of a value. */
struct settings_place {
        const char *path; /* or "-o", or "default" */
        unsigned line;    /* 0: there are no lines */
};

/* Report "PATH:LINE: NAME = VALUE: problem", without LINE if it is 0, NAME if it is NULL or empty, and VALUE if it is NULL.
 * Bytes that are not printable ASCII become \xHH, and long values are cut. LOG_ERR counts as an error even if it is not
 * shown any more. */
void settings_report(struct settings_reporter *reporter, int priority, struct settings_place place,
        const char *name, const char *value, const char *format, ...) _printf_(6, 7);
