/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "agents/dialect.h"

/* An attribute list as a string literal, whose own NUL closes it. */
#define LIST(literal) \
        { literal, sizeof(literal) }

static const struct {
        const char *name;
        struct slice greeting;
} dialects[_DIALECT_MAX] = {
        [DIALECT_POSTFIX] = { "postfix", LIST("protocol\0connection_cache_protocol\0") },
        [DIALECT_POSTFIX_LEGACY] = { "postfix-legacy", {} },
        [DIALECT_NATIVE] = { "native",
                LIST("protocol\0connection_cache_protocol\0extensions\0inline save farewell epoch list "
                     "flush top\0") },
        [DIALECT_CONTROL] = { "control", LIST("protocol\0scached_control_protocol\0") },
};

enum dialect dialect_from_name(const char *name) {
        for (int i = 0; i < _DIALECT_MAX; i++)
                if (strcmp(dialects[i].name, name) == 0)
                        return (enum dialect) i;

        return _DIALECT_INVALID;
}

const char *dialect_name(enum dialect dialect) {
        return dialects[dialect].name;
}

struct slice dialect_greeting(enum dialect dialect) {
        return dialects[dialect].greeting;
}
