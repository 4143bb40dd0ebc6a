/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/printable.h"
#include "scachectl/help.h"
#include "scachectl/output.h"
#include "scachectl/rendezvous.h"

/* Print the transport table of one host of a fleet: scached-fleet(7). Postfix is neither asked nor changed, so that the table of
 * any host can be made on any other. */

#define HOSTS_MAX 256

#define BLANKS " \t\r\n"

struct fleet {
        struct rendezvous_host hosts[HOSTS_MAX];
        size_t n_hosts;
        size_t self;
};

static void lower(char *text) {
        for (; *text; text++)
                *text = (char) tolower((unsigned char) *text);
}

/* Domains may be in UTF-8. */
static bool is_name(const char *text, const char *also) {
        size_t n = strlen(text);

        for (const char *c = text; *c; c++)
                if (!isalnum((unsigned char) *c) && (unsigned char) *c < 0x80 && !strchr("-._", *c) &&
                        !strchr(also, *c))
                        return false;

        return n > 0 && n <= RENDEZVOUS_NAME_MAX;
}

static int find_host(const struct fleet *fleet, const char *name, size_t *ret) {
        for (size_t i = 0; i < fleet->n_hosts; i++)
                if (strcasecmp(fleet->hosts[i].name, name) == 0) {
                        *ret = i;
                        return 0;
                }
        return -ENOENT;
}

/* Add the host of "HOST" or "HOST=WEIGHT", which is changed in place. */
static int add_host(struct fleet *fleet, char *text) {
        struct rendezvous_host *host = &fleet->hosts[fleet->n_hosts];
        char *weight = strchr(text, '='), *end;
        size_t same;

        *host = (struct rendezvous_host){ text, 1 };
        if (weight) {
                unsigned long value;

                *weight++ = 0;
                value = strtoul(weight, &end, 10);
                if (!isdigit((unsigned char) *weight) || *end || value > RENDEZVOUS_WEIGHT_MAX)
                        return help_refer(&command_fleet,
                                "The weight of %s is \"%s\", but must be a number from 0 to %u", text,
                                weight, RENDEZVOUS_WEIGHT_MAX);
                host->weight = (unsigned) value;
        }

        lower(text);
        if (!is_name(text, ":"))
                return help_refer(&command_fleet, "\"%s\" is no name or address of a host", text);
        if (find_host(fleet, text, &same) == 0)
                return help_refer(&command_fleet, "Name %s only once", text);
        fleet->n_hosts++;
        return EX_OK;
}

static int find_self(struct fleet *fleet, const char *name) {
        char own[HOST_NAME_MAX + 1] = "";

        if (!name) {
                (void) gethostname(own, sizeof(own) - 1);
                name = own;
        }
        if (find_host(fleet, name, &fleet->self) < 0)
                return help_refer(&command_fleet,
                        "This host, \"%s\", is not among the hosts: name it with --self", name);
        return EX_OK;
}

static int fleet_init(struct fleet *fleet, const struct options *options) {
        unsigned sum = 0;
        int r = EX_OK;

        *fleet = (struct fleet){};
        for (int i = 0; i < options->n_arguments && r == EX_OK; i++)
                r = add_host(fleet, options->arguments[i]);
        if (r != EX_OK)
                return r;

        for (size_t i = 0; i < fleet->n_hosts; i++)
                sum += fleet->hosts[i].weight;
        if (sum == 0)
                return help_refer(&command_fleet, "At least one host must have a weight above 0");
        return find_self(fleet, options->self);
}

/* Print the lines for the domains of LINE. All have the owner of the first one, because they share servers. Returns -EINVAL and
 * the word that is no domain. */
static int put_line(const struct fleet *fleet, const struct options *options, char *line, FILE *to,
        const char **ret_wrong) {
        size_t owner = fleet->n_hosts;
        char *rest, *word;

        for (word = strtok_r(line, BLANKS, &rest); word; word = strtok_r(NULL, BLANKS, &rest)) {
                /* A dot in front means the subdomains, which have the owner of the domain. */
                const char *domain = word + (*word == '.');

                lower(word);
                if (!is_name(domain, "") || *domain == '.') {
                        *ret_wrong = word;
                        return -EINVAL;
                }
                if (owner == fleet->n_hosts)
                        owner = rendezvous_choose(fleet->hosts, fleet->n_hosts, domain);
                if (owner != fleet->self)
                        fprintf(to, "%s %s:[%s]:%u\n", word, options->transport, fleet->hosts[owner].name,
                                options->port);
        }
        return 0;
}

/* Print the table for the destinations of FROM. */
static int put_table(const struct fleet *fleet, const struct options *options, FILE *from, FILE *to) {
        const char *path = options->destinations ? options->destinations : "standard input";
        _cleanup_(freep) char *line = NULL;
        size_t size = 0;

        fprintf(to, "# scachectl fleet: the destinations of hosts other than %s.\n",
                fleet->hosts[fleet->self].name);
        for (unsigned number = 1; getline(&line, &size, from) >= 0; number++) {
                const char *wrong;

                if (line[strspn(line, BLANKS)] == '#') /* as in Postfix's own files */
                        continue;
                if (put_line(fleet, options, line, to, &wrong) < 0) {
                        fprintf(stderr,
                                "scachectl: %s:%u: \"%s\" is no domain: write domains, or .domain for "
                                "subdomains.\n",
                                path, number, printable(slice_of(wrong)).text);
                        return EX_DATAERR;
                }
        }
        if (!ferror(from))
                return EX_OK;

        fprintf(stderr, "scachectl: Could not read %s: %s.\n", path, strerror(errno));
        return EX_NOINPUT;
}

static void fclosep(FILE **file) {
        if (*file)
                (void) fclose(*file);
}

/* Make the whole table in memory, so that an error never leaves a part of it. The caller frees it. */
static int make_table(
        const struct fleet *fleet, const struct options *options, char **ret, size_t *ret_size) {
        _cleanup_(fclosep) FILE *file = NULL;
        FILE *to;
        int r;

        if (options->destinations) {
                file = fopen(options->destinations, "re");
                if (!file) {
                        fprintf(stderr, "scachectl: Could not read %s: %s.\n", options->destinations,
                                strerror(errno));
                        return EX_NOINPUT;
                }
        }

        to = open_memstream(ret, ret_size);
        if (!to) {
                fprintf(stderr, "scachectl: Out of memory.\n");
                return EX_OSERR;
        }
        r = put_table(fleet, options, file ? file : stdin, to);
        if (fclose(to) != 0 && r == EX_OK) {
                fprintf(stderr, "scachectl: Out of memory.\n");
                r = EX_OSERR;
        }
        return r;
}

static int run(const struct options *options) {
        _cleanup_(freep) char *table = NULL;
        struct output output;
        struct fleet fleet;
        size_t size;
        int r;

        r = fleet_init(&fleet, options);
        if (r == EX_OK)
                r = make_table(&fleet, options, &table, &size);
        if (r != EX_OK)
                return r;

        r = output_open(&output, options->output);
        if (r >= 0) {
                (void) fwrite(table, 1, size, output.stream);
                r = output_finish(&output);
        }
        return r < 0 ? output_explain(options->output, r) : EX_OK;
}

const struct command command_fleet = {
        .name = "fleet",
        .arguments = "HOST[=WEIGHT]...",
        .n_arguments_min = 1,
        .n_arguments_max = HOSTS_MAX,
        .options = OPTION(SELF) | OPTION(DESTINATIONS) | OPTION(TRANSPORT) | OPTION(PORT) | OPTION(OUTPUT),
        .summary = "print the transport table of a host",
        .help = "Give each destination to one host of several, so that all mail to it shares\n"
                "connections, and print Postfix's transport table for this host: the\n"
                "destinations of the other hosts. All hosts must be given the same HOSTs and\n"
                "destinations. Domains in one line of FILE go to the same host. A host of\n"
                "WEIGHT 2 gets twice as many as one of 1, a host of 0 gets none.\n"
                "First set up Postfix as in scached-fleet(7).",
        .examples = "  scachectl fleet mx1.example mx2.example --destinations=/etc/postfix/slow\\\n"
                    "          --output=/etc/postfix/fleet && postmap /etc/postfix/fleet",
        .run = run,
};
