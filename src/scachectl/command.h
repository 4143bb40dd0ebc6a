/* scachectl: what every command gets, and the commands */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Beyond those of sysexits(3). */
#define EXIT_MISS 1 /* nothing was found */

/* What was said on the command line. */
struct command_options {
        const char *control_path;
        const char *service_path;
        const char *config_directory; /* of a Postfix instance, NULL for all there are */
        bool legacy;                  /* the service does not greet */
        bool json;
        bool bindings;
        bool has_user;
        unsigned user;
        const char *endpoint; /* globs, or NULL */
        const char *destination;
        const char *property;
        const char *farewell;
        unsigned ttl_s;
        int fd;
        uint64_t timeout_us;
        uint64_t interval_us;
        unsigned count; /* 0: no end */
        char **arguments;
        int n_arguments;
};

/* Each returns the exit status, and has said what went wrong. */
int command_status(const struct command_options *options);
int command_list(const struct command_options *options);
int command_flush(const struct command_options *options);
int command_metrics(const struct command_options *options);
int command_watch(const struct command_options *options);
int command_save_endp(const struct command_options *options);
int command_save_dest(const struct command_options *options);
int command_find_endp(const struct command_options *options);
int command_find_dest(const struct command_options *options);
int command_postfix(const struct command_options *options);

/* Say in one sentence why PATH, the socket of the unit UNIT, was of no use, and what to do about it. ERROR is a
 * negative errno. Returns the exit status. */
int command_explain(const char *path, const char *unit, int error);

#define UNIT_CONTROL "scached-control.socket"
#define UNIT_SERVICE "scached.socket"
