#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "scachectl/command.h"
#include "scachectl/overview.h"
#include "scachectl/report.h"

int command_status(const struct command_options *options) {
        struct report report;
        int r;

        r = report_fetch(&report, options->control_path, options->timeout_us);
        if (r < 0)
                return command_explain(options->control_path, UNIT_CONTROL, r);

        if (options->json)
                report_put_json(&report);
        else
                overview_put(&report);
        return EX_OK;
}
