/* scachectl: the answer to `status`, by name */
#pragma once

#include <stdint.h>

#include "scachectl/client.h"

#define REPORT_NUMBERS_MAX 64

struct report {
        char version[32];
        size_t n_numbers;
        struct {
                char name[32];
                uint64_t value;
        } numbers[REPORT_NUMBERS_MAX];
};

/* Ask for the status. What is not known here is kept all the same. Returns negative errno as client_ask(). */
int report_ask(struct report *report, struct client *client);

/* The same through a connection of its own, which waits for TIMEOUT µs at most. Returns negative errno as client_new(), too. */
int report_fetch(struct report *report, const char *path, uint64_t timeout_us);

/* A number by its name, 0 if the service does not know it. */
uint64_t report_number(const struct report *report, const char *name);

/* The whole report as one JSON object in one line. */
void report_put_json(const struct report *report);
