/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "scachectl/command.h"
#include "scachectl/overview.h"
#include "scachectl/report.h"

static int run(const struct options *options) {
        struct report report;
        int r;

        r = report_fetch(&report, options->control_path, options->timeout_us);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (options->json)
                report_put_json(&report, stdout);
        else
                overview_put(&report);
        return EX_OK;
}

const struct command command_status = {
        .name = "status",
        .options = OPTIONS_CONTROL,
        .summary = "show the state of scached",
        .help = "Show what scached holds, and what it has done since its first start. A restart\n"
                "does not reset these numbers.",
        .examples = "  scachectl status\n"
                    "  scachectl status --json | jq .connections",
        .run = run,
};
