/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* agents: whose entries a request of the control socket is about */
#pragma once

#include <errno.h>
#include <stdbool.h>
#include <sys/types.h>

#include "wire/list.h"

/* All zero is everybody. */
struct control_user {
        bool is_set;
        uint64_t uid;
};

/* Read the value of the attribute `user`. Returns -EINVAL. */
static inline int control_user_parse(struct slice value, struct control_user *ret) {
        ret->is_set = true;
        return wire_number(value, &ret->uid);
}

/* An agent may ask about its own user alone; ONLY_USER is NULL for an administrator. Returns -EPERM for a request about another one. */
static inline int control_user_restrict(struct control_user *user, const uid_t *only_user) {
        if (!only_user)
                return 0;
        if (user->is_set && user->uid != *only_user)
                return -EPERM;

        *user = (struct control_user){ true, *only_user };
        return 0;
}

static inline bool control_user_matches(const struct control_user *user, uid_t uid) {
        return !user->is_set || user->uid == uid;
}
