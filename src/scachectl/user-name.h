/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the names of users */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The last one looked up: there are few users, mostly in a row. All zero is none. */
struct user_name {
        uint64_t user;
        char text[64];
};

/* Return the name of a user, or the number of one who has none; valid until the next call. */
const char *user_name_get(struct user_name *name, uint64_t user);
