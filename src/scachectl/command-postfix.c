/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "scachectl/help.h"
#include "scachectl/program.h"
#include "scachectl/service.h"

/* Switch Postfix instances to scached and back, with the programs that an administrator would use, and print each step. An
 * instance is not changed before a lookup through its new socket has worked. */

#define SERVICE_NAME     "scached" /* of the socket in an instance's private/ */
#define SERVICE_NAME_OWN "scache"  /* Postfix's own */

/* The instance with its own socket unit. All others use the template. */
#define QUEUE_DIRECTORY "/var/spool/postfix"
#define MAIL_OWNER      "postfix"
#define UNIT            "scached-postfix.socket"
#define TEMPLATE        "scached-postfix@.socket"

#define UNIT_FOLDER "/etc/systemd/system"
#define DROP_IN     "scachectl.conf"

#define INSTANCES_SIZE 65536 /* of what postmulti(1) lists */
#define VALUE_MAX      1024
#define UNIT_NAME_MAX  256 /* as in systemd */

struct instance {
        const char *config_directory;
        char queue_directory[VALUE_MAX];
        char mail_owner[VALUE_MAX];
        char service_name[VALUE_MAX];
        char unit[UNIT_NAME_MAX];
        char service_unit[UNIT_NAME_MAX];
        char socket_path[VALUE_MAX + sizeof("/private/" SERVICE_NAME)];
        bool legacy; /* before 3.6, which must not be greeted */
};

static _printf_(1, 2) int fail(const char *format, ...) {
        va_list ap;

        fputs("scachectl: ", stderr);
        va_start(ap, format);
        vfprintf(stderr, format, ap);
        va_end(ap);
        fputc('\n', stderr);
        return EX_UNAVAILABLE;
}

/* Run "systemctl VERB UNIT". Returns whether it worked. */
static bool systemctl(const char *verb, const char *unit) {
        return program_run((const char *const[]){ "systemctl", "--quiet", verb, unit, NULL }) == 0;
}

static int read_parameter(const struct instance *instance, const char *name, char *value) {
        int r;

        r = program_read(
                (const char *const[]){ "postconf", "-c", instance->config_directory, "-hx", name, NULL },
                value, VALUE_MAX);
        if (r == 0)
                return EX_OK;
        if (r == -ENOENT)
                return fail("postconf is missing: install Postfix first.");
        return fail("Could not read %s of the Postfix in %s.", name, instance->config_directory);
}

/* The names of the instance's units. */
static int name_units(struct instance *instance) {
        const char *name;
        int r;

        if (strcmp(instance->queue_directory, QUEUE_DIRECTORY) == 0) {
                strcpy(instance->unit, UNIT);
                strcpy(instance->service_unit, "scached.service");
                return EX_OK;
        }

        r = program_read((const char *const[]){ "systemd-escape", "--path", "--template=" TEMPLATE,
                                 instance->queue_directory, NULL },
                instance->unit, sizeof(instance->unit));
        name = strchr(instance->unit, '@');
        if (r != 0 || !name)
                return fail("systemd-escape could not make a unit name of %s.", instance->queue_directory);

        (void) snprintf(instance->service_unit, sizeof(instance->service_unit), "scached%.*s.service",
                (int) (strlen(name) - strlen(".socket")), name);
        return EX_OK;
}

static int instance_init(struct instance *instance, const char *config_directory) {
        char version[VALUE_MAX];
        int major, minor, r;

        *instance = (struct instance){ .config_directory = config_directory };
        r = read_parameter(instance, "queue_directory", instance->queue_directory);
        if (r == EX_OK)
                r = read_parameter(instance, "mail_owner", instance->mail_owner);
        if (r == EX_OK)
                r = read_parameter(instance, "connection_cache_service_name", instance->service_name);
        if (r == EX_OK)
                r = read_parameter(instance, "mail_version", version);
        if (r == EX_OK)
                r = name_units(instance);
        if (r != EX_OK)
                return r;

        if (sscanf(version, "%d.%d", &major, &minor) != 2)
                return fail(
                        "Could not understand the version of the Postfix in %s: its mail_version is \"%s\".",
                        config_directory, version);

        instance->legacy = major < 3 || (major == 3 && minor < 6);
        (void) snprintf(instance->socket_path, sizeof(instance->socket_path), "%s/private/" SERVICE_NAME,
                instance->queue_directory);
        return EX_OK;
}

/* Return the paths of the drop-in for the instance's socket unit, which has the settings that this instance needs. */
static void drop_in_paths(const struct instance *instance, char folder[PATH_MAX], char file[PATH_MAX]) {
        (void) snprintf(folder, PATH_MAX, UNIT_FOLDER "/%s.d", instance->unit);
        (void) snprintf(file, PATH_MAX, UNIT_FOLDER "/%s.d/" DROP_IN, instance->unit);
}

static void remove_drop_in(const struct instance *instance) {
        char folder[PATH_MAX], file[PATH_MAX];

        drop_in_paths(instance, folder, file);
        if (unlink(file) < 0)
                return;
        (void) rmdir(folder);
        (void) program_run((const char *const[]){ "systemctl", "daemon-reload", NULL });
        printf("%s: removed.\n", file);
}

static int write_drop_in(const struct instance *instance) {
        bool has_owner = strcmp(instance->mail_owner, MAIL_OWNER) != 0;
        char folder[PATH_MAX], file[PATH_MAX];
        FILE *stream;

        if (!instance->legacy && !has_owner)
                return EX_OK;

        drop_in_paths(instance, folder, file);
        if (mkdir(folder, 0755) < 0 && errno != EEXIST)
                return fail("Could not create %s: %s.", folder, strerror(errno));
        stream = fopen(file, "we");
        if (!stream)
                return fail("Could not write %s: %s.", file, strerror(errno));

        fputs("# Written by \"scachectl postfix enable\"; \"scachectl postfix disable\" removes "
              "it.\n[Socket]\n",
                stream);
        if (instance->legacy)
                fputs("FileDescriptorName=postfix-legacy\n", stream);
        if (has_owner)
                fprintf(stream, "SocketUser=%s\n", instance->mail_owner);
        if (fclose(stream) != 0)
                return fail("Could not write %s: %s.", file, strerror(errno));

        (void) program_run((const char *const[]){ "systemctl", "daemon-reload", NULL });
        printf("%s: written%s.\n", file, instance->legacy ? ", because this Postfix is older than 3.6" : "");
        return EX_OK;
}

/* Look up a destination that nobody has saved, as Postfix would: any answer proves that the socket works. Returns
 * negative errno. */
static int look_up(const struct options *options, const struct instance *instance) {
        struct options here = *options;
        _cleanup_(scache_freep) struct scache *scache = NULL;
        _cleanup_(closep) int fd = -1;
        const struct passwd *owner;
        int r;

        owner = getpwnam(instance->mail_owner);
        if (!owner)
                return -ENXIO;

        here.service_path = instance->socket_path;
        here.legacy = instance->legacy;
        if (seteuid(owner->pw_uid) < 0)
                return -errno;
        r = service_new(&scache, &here);
        if (r >= 0)
                r = scache_find_dest(scache, "scachectl postfix enable", &fd);
        if (seteuid(0) < 0)
                return -errno;
        return r == -ENOENT ? 0 : r;
}

/* Postfix creates the folder of its sockets when it starts for the first time, or checks itself. */
static int make_folder(const struct instance *instance) {
        const char *config = instance->config_directory;
        char folder[VALUE_MAX + sizeof("/private")];
        struct stat st;

        (void) snprintf(folder, sizeof(folder), "%s/private", instance->queue_directory);
        if (stat(folder, &st) == 0)
                return EX_OK;
        (void) program_run((const char *const[]){ "postfix", "-c", config, "check", NULL });
        if (stat(folder, &st) < 0)
                return fail("Postfix does not create %s: run \"postfix -c %s check\" to see why.", folder,
                        config);
        printf("%s: created by Postfix.\n", folder);
        return EX_OK;
}

/* Open the socket, even if one is open that cannot be used. Parked connections stay. */
static int open_socket(const struct options *options, const struct instance *instance) {
        int r;

        /* A socket unit that was stopped while it was masked opens only with the service, which wants enabled sockets. */
        if (!systemctl("enable", instance->unit) ||
                (!systemctl("restart", instance->unit) && !systemctl("restart", instance->service_unit)))
                return fail(
                        "Could not start %s: see \"systemctl status %s\".", instance->unit, instance->unit);
        printf("%s: enabled and started.\n", instance->unit);

        r = look_up(options, instance);
        if (r == -ENXIO)
                return fail("There is no user \"%s\", which mail_owner of the Postfix in %s names.",
                        instance->mail_owner, instance->config_directory);
        if (r < 0)
                return fail("Nothing was changed in Postfix: a lookup by user \"%s\" through %s failed "
                            "(%s). See "
                            "\"journalctl -u %s -u %s\".",
                        instance->mail_owner, instance->socket_path, strerror(-r), instance->unit,
                        instance->service_unit);
        return EX_OK;
}

/* Return whether the instance's master(8) runs. */
static bool is_running(const struct instance *instance) {
        char path[PATH_MAX];
        int pid = 0;
        FILE *file;

        (void) snprintf(path, sizeof(path), "%s/pid/master.pid", instance->queue_directory);
        file = fopen(path, "re");
        if (!file)
                return false;
        if (fscanf(file, "%d", &pid) != 1)
                pid = 0;
        (void) fclose(file);
        return pid > 0 && kill(pid, 0) == 0;
}

/* Reload Postfix, if it runs. */
static int reload(const struct instance *instance) {
        const char *folder = instance->config_directory;

        if (!is_running(instance))
                return EX_OK;
        if (program_run((const char *const[]){ "postfix", "-c", folder, "reload", NULL }) != 0)
                return fail("Could not reload Postfix: run \"postfix -c %s reload\" to see why.", folder);
        printf("Postfix in %s: reloaded.\n", folder);
        return EX_OK;
}

/* Change main.cf with postconf(1), and reload Postfix, if it runs. */
static int set_service_name(
        const struct instance *instance, const char *option, const char *argument, const char *what) {
        const char *folder = instance->config_directory;

        if (program_run((const char *const[]){ "postconf", "-c", folder, option, argument, NULL }) != 0)
                return fail("Could not change %s/main.cf with postconf.", folder);
        printf("%s/main.cf: %s.\n", folder, what);
        return reload(instance);
}

static int enable(const struct options *options, const struct instance *instance) {
        bool worked;
        int r;

        r = write_drop_in(instance);
        if (r == EX_OK)
                r = make_folder(instance);
        if (r != EX_OK)
                return r;

        worked = systemctl("is-enabled", instance->unit) && look_up(options, instance) == 0;
        if (!worked)
                r = open_socket(options, instance);
        if (r != EX_OK)
                return r;
        printf("%s: a lookup works.\n", instance->socket_path);

        if (strcmp(instance->service_name, SERVICE_NAME) == 0) {
                printf("%s/main.cf: connection_cache_service_name=" SERVICE_NAME " already.\n",
                        instance->config_directory);
                /* Agents that found no socket before, as after a new installation, use the cache only after a reload. */
                return worked ? EX_OK : reload(instance);
        }

        if (strcmp(instance->service_name, SERVICE_NAME_OWN) != 0)
                printf("%s/main.cf: connection_cache_service_name was %s.\n", instance->config_directory,
                        instance->service_name);
        return set_service_name(instance, "-e", "connection_cache_service_name=" SERVICE_NAME,
                "connection_cache_service_name=" SERVICE_NAME);
}

static int disable(_unused_ const struct options *options, const struct instance *instance) {
        int r = EX_OK;

        if (strcmp(instance->service_name, SERVICE_NAME) == 0)
                r = set_service_name(instance, "-X", "connection_cache_service_name",
                        "connection_cache_service_name removed: Postfix uses its own cache again");
        if (r != EX_OK)
                return r;

        if (!systemctl("disable", instance->unit) || !systemctl("stop", instance->unit))
                return fail(
                        "Could not stop %s: see \"systemctl status %s\".", instance->unit, instance->unit);
        printf("%s: stopped and disabled.\n", instance->unit);

        if (strcmp(instance->unit, UNIT) != 0)
                (void) systemctl("stop", instance->service_unit);
        (void) unlink(instance->socket_path);
        remove_drop_in(instance);
        return EX_OK;
}

typedef int (*instance_fn)(const struct options *options, const struct instance *instance);

static int with_instance(const struct options *options, const char *config_directory, instance_fn fn) {
        struct instance instance;
        int r;

        r = instance_init(&instance, config_directory);
        return r == EX_OK ? fn(options, &instance) : r;
}

/* Call FN for all instances that postmulti(1) lists, as lines of "NAME GROUP y|n CONFIG_DIRECTORY". Goes on after a failure,
 * and returns the first one. */
static int with_all_instances(const struct options *options, instance_fn fn) {
        static const char *const arguments[] = { "postmulti", "-l", NULL };
        _cleanup_(freep) char *list = NULL;
        char *line, *rest;
        int r, status = EX_OK;

        list = malloc(INSTANCES_SIZE);
        if (!list)
                return fail("Out of memory.");

        r = program_read(arguments, list, INSTANCES_SIZE);
        if (r == -ENOENT)
                return fail("postmulti is missing: install Postfix first.");
        if (r != 0)
                return fail("Could not list the Postfix instances: run \"postmulti -l\" to see why.");

        for (line = strtok_r(list, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
                char *config_directory = strchr(line, '/');

                if (!config_directory)
                        continue;
                r = with_instance(options, config_directory, fn);
                if (status == EX_OK)
                        status = r;
        }
        return status;
}

static int run(const struct options *options) {
        const char *what = options->arguments[0];
        instance_fn fn;

        if (strcmp(what, "enable") == 0)
                fn = enable;
        else if (strcmp(what, "disable") == 0)
                fn = disable;
        else
                return help_refer_to_usage(&command_postfix);

        if (fn == disable && options->has_timeout)
                return help_refer(&command_postfix, "disable has no option --timeout");

        if (geteuid() != 0) {
                (void) fail("Only root can change Postfix and systemd units: use sudo.");
                return EX_NOPERM;
        }

        /* Keep the order of steps on standard output and failures on standard error. */
        (void) setvbuf(stdout, NULL, _IOLBF, 0);
        return options->config_directory ? with_instance(options, options->config_directory, fn)
                                         : with_all_instances(options, fn);
}

const struct command command_postfix = {
        .name = "postfix",
        .arguments = "enable|disable",
        .n_arguments_min = 1,
        .n_arguments_max = 1,
        .options = OPTION(CONFIG_DIRECTORY) | OPTION(TIMEOUT),
        .summary = "switch Postfix to scached, or back",
        .help = "Switch all Postfix instances of this host to scached, or back to their own\n"
                "cache. Each step is reported. Postfix is switched only after a lookup through\n"
                "its new socket has worked. Needs root.",
        .examples = "  scachectl postfix enable\n"
                    "  scachectl postfix disable --config-directory=/etc/postfix-two",
        .exit_status = "  0 if all was done, 69 if a step failed, 77 if you are not root.",
        .run = run,
};
