/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the answer to `status`, as numbers with names */
#pragma once

#include <stdint.h>
#include <stdio.h>

#include "scachectl/client.h"

#define REPORT_NUMBERS_MAX 256
#define REPORT_NAME_MAX    40

struct report {
        char version[32];
        size_t n_numbers;
        struct {
                char name[REPORT_NAME_MAX];
                uint64_t value;
        } numbers[REPORT_NUMBERS_MAX];
};

/* Ask for the status, and keep all numbers in the answer. Returns negative errno as client_ask(). */
int report_ask(struct report *report, struct client *client);

/* The same through a new connection; each wait takes at most TIMEOUT µs. Also returns negative errno as client_new(). */
int report_fetch(struct report *report, const char *path, uint64_t timeout_us);

/* Return the number with this name, 0 if the answer does not have it. */
uint64_t report_number(const struct report *report, const char *name);

/* Print the whole report as one JSON object in one line. */
void report_put_json(const struct report *report, FILE *out);
