/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/report.h"

#include <string.h>

#include "scachectl/json.h"

int report_ask(struct report *report, struct client *client) {
        static const struct client_attribute request = { SLICE("request"), SLICE("status") };
        struct client_attribute attribute;
        int r;

        *report = (struct report){};
        r = client_ask(client, &request, 1);
        if (r < 0)
                return r;

        while (client_next(client, &attribute)) {
                size_t i = report->n_numbers;

                if (slice_equal(attribute.name, SLICE("version")))
                        (void) snprintf(
                                report->version, sizeof(report->version), "%s", attribute.value.data);
                else if (i < REPORT_NUMBERS_MAX && attribute.name.size < sizeof(report->numbers[i].name) &&
                        wire_number(attribute.value, &report->numbers[i].value) >= 0) {
                        memcpy(report->numbers[i].name, attribute.name.data, attribute.name.size + 1);
                        report->n_numbers++;
                }
        }

        return 0;
}

int report_fetch(struct report *report, const char *path, uint64_t timeout_us) {
        _cleanup_(client_freep) struct client *client = NULL;
        int r;

        r = client_new(&client, path, CLIENT_CONTROL, timeout_us);
        return r < 0 ? r : report_ask(report, client);
}

uint64_t report_number(const struct report *report, const char *name) {
        for (size_t i = 0; i < report->n_numbers; i++)
                if (strcmp(report->numbers[i].name, name) == 0)
                        return report->numbers[i].value;

        return 0;
}

void report_put_json(const struct report *report, FILE *out) {
        struct json json = JSON_INIT(out);

        json_open(&json, '{');
        json_name(&json, SLICE("version"));
        json_text(&json, slice_of(report->version));
        for (size_t i = 0; i < report->n_numbers; i++) {
                json_name(&json, slice_of(report->numbers[i].name));
                json_number(&json, report->numbers[i].value);
        }
        json_close(&json, '}');
        json_line(&json);
}
