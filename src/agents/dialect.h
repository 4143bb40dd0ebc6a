/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: how a listening socket speaks, chosen by its FileDescriptorName= */
#pragma once

#include <stdbool.h>

#include "base/slice.h"

enum dialect {
        DIALECT_POSTFIX,        /* Postfix >= 3.6: the server greets */
        DIALECT_POSTFIX_LEGACY, /* Postfix < 3.6: no greeting */
        DIALECT_NATIVE,         /* as postfix, and the greeting announces extensions */
        DIALECT_CONTROL,        /* for administrators */
        _DIALECT_MAX,
        _DIALECT_INVALID = -1,
};

/* Return the dialect with this name, or _DIALECT_INVALID. */
enum dialect dialect_from_name(const char *name);
const char *dialect_name(enum dialect dialect);

/* Return the greeting: an attribute list, or nothing. It is static. */
struct slice dialect_greeting(enum dialect dialect);
