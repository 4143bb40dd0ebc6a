/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* epochs: is there the same file at a path for two processes that may be in different mount namespaces? */
#pragma once

#include <stdbool.h>

#include "base/slice.h"

/* Both OURS and THEIRS are texts of /proc/PID/mountinfo. Returns whether PATH, which must be absolute, leads in both to the same
 * place of the same file system; also false if a text does not tell. Links and ".." on the way are not followed: who has the same
 * link is taken to have what it points to. */
bool mounts_agree(struct slice ours, struct slice theirs, const char *path);
