/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: the owner of a destination among the hosts of a fleet */
#pragma once

#include <stddef.h>

/* For each destination, each host draws as many lots as it has weight, and the highest lot wins ("rendezvous hashing"; Thaler and
 * Ravishankar, 1998). So all hosts come to the same result without asking one another, in whatever order they are named, and a
 * host that comes or goes moves no destination but its own. */

#define RENDEZVOUS_WEIGHT_MAX 100
#define RENDEZVOUS_NAME_MAX   254 /* bytes of the name of a host or a destination */

struct rendezvous_host {
        const char *name; /* in lower case, at most RENDEZVOUS_NAME_MAX bytes, and no other host's */
        unsigned weight;  /* up to RENDEZVOUS_WEIGHT_MAX; a host of weight 0 gets nothing */
};

/* Return the index of the host to which DESTINATION belongs, which is in lower case and has at most RENDEZVOUS_NAME_MAX bytes. At
 * least one host must have a weight. The result is the same in every release and on every machine. */
size_t rendezvous_choose(const struct rendezvous_host *hosts, size_t n_hosts, const char *destination);
