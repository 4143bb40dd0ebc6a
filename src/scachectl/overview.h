/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the state of the service on a few lines */
#pragma once

#include "scachectl/report.h"

/* Print it for people to read. */
void overview_put(const struct report *report);
