/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/user-name.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>

const char *user_name_get(struct user_name *name, uint64_t user) {
        struct passwd *passwd;

        if (name->text[0] && name->user == user)
                return name->text;

        passwd = getpwuid((uid_t) user);
        name->user = user;
        if (passwd)
                (void) snprintf(name->text, sizeof(name->text), "%s", passwd->pw_name);
        else
                (void) snprintf(name->text, sizeof(name->text), "%" PRIu64, user);
        return name->text;
}
