/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/examiner.h"

#include <errno.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/siphash.h"
#include "epochs/epoch.h"
#include "epochs/files.h"
#include "epochs/mounts.h"
#include "epochs/process.h"
#include "settings/file.h"

/* The most Postfix instances, and different command lines of their processes, that we remember. For others, only the current
 * state of their files is known, not their history. */
#define PLACES_MAX   32
#define PROFILES_MAX 64

/* How often to read a main.cf that changes while it is read. */
#define LOOKS_MAX 3

/* If CLOCK_REALTIME moves by more than this against CLOCK_BOOTTIME, somebody has set it. */
#define CLOCK_SET_US ((int64_t) 5 * (int64_t) USEC_PER_MSEC)

/* Not secret, and the same in each process: an epoch outlives the daemon. */
static const struct siphash_key key = { UINT64_C(0x7363616368656465), UINT64_C(0x706f63686b657921) };

/* An instance, and its configuration directory. */
struct place {
        char *directories;
        char *queue;
        char *directory;
};

/* The configuration of processes with one command line. */
struct profile {
        uint64_t name;
        uint64_t used_us;
        struct file_state main_cf;
        struct configuration_files files;
        struct history history;
};

struct examiner {
        struct place places[PLACES_MAX];
        size_t n_places;
        struct profile profiles[PROFILES_MAX];
        int64_t clock_offset_us; /* CLOCK_REALTIME - CLOCK_BOOTTIME, 0 before the first look */
        uint64_t clock_set_us;
        struct process process;
};

static int fail(struct examination *x, int error, const char *format, ...) _printf_(3, 4);

static int fail(struct examination *x, int error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void) vsnprintf(x->problem, sizeof(x->problem), format, arguments);
        va_end(arguments);
        return error;
}

static uint64_t mix(uint64_t hash, const void *data, size_t size) {
        return siphash13(&(struct siphash_key){ key.k0 ^ hash, key.k1 }, (struct slice){ data, size });
}

static void place_deinit(struct place *place) {
        free(place->directories);
        free(place->queue);
        free(place->directory);
        *place = (struct place){};
}

/* Read DIRECTORY/main.cf. The caller owns the text; a missing file is an error. */
static int read_main_cf(struct examination *x, const char *directory, char **ret_data, size_t *ret_size) {
        char path[CONFIGURATION_PATH_MAX];
        int r;

        (void) snprintf(path, sizeof(path), "%s/main.cf", directory);
        r = settings_file_read(path, ret_data, ret_size);
        if (r >= 0 && !*ret_data)
                r = -ENOENT;
        return r < 0 ? fail(x, r, "%.256s: %s", path, strerror(-r)) : 0;
}

static bool is_same_directory(const char *a, const char *b) {
        struct stat x, y;

        return stat(a, &x) >= 0 && stat(b, &y) >= 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Return 1 if the queue belongs to the instance that is configured in DIRECTORY, 0 if not. *RET_INSTANCES, if wanted, are the
 * directories of further instances that it lists. */
static int look_in(struct examination *x, const char *directory, char **ret_instances) {
        _cleanup_(freep) char *data = NULL, *queue = NULL;
        struct configuration configuration = { .directory = directory };
        int r;

        r = read_main_cf(x, directory, &data, &configuration.main_cf.size);
        if (r < 0)
                return r;

        configuration.main_cf.data = data;
        r = configuration_value(&configuration, "queue_directory", CONFIGURATION_QUEUE, &queue);
        if (r >= 0 && ret_instances)
                r = configuration_value(&configuration, "multi_instance_directories", "", ret_instances);
        if (r < 0)
                return fail(x, r, "%.256s/main.cf: %s", directory, strerror(-r));
        return is_same_directory(queue, x->queue);
}

/* Look in each of DIRECTORIES, and in those that these list. Returns 1 and the directory, or 0 if it is none of them. */
static int search(struct examination *x, const char *directories, bool with_instances, char **ret) {
        _cleanup_(freep) char *copy = strdup(directories);
        char *rest = copy, *directory;
        int r;

        if (!copy)
                return -ENOMEM;

        while ((directory = strsep(&rest, ", \t\r\n"))) {
                _cleanup_(freep) char *instances = NULL;

                if (!*directory)
                        continue;
                r = look_in(x, directory, with_instances ? &instances : NULL);
                if (r > 0) {
                        *ret = strdup(directory);
                        return *ret ? 1 : -ENOMEM;
                }
                if (r >= 0 && instances)
                        r = search(x, instances, false, ret);
                if (r != 0)
                        return r;
        }
        return 0;
}

/* Find the configuration directory of the instance with this queue directory. */
static int find_directory(struct examiner *examiner, struct examination *x, const char **ret) {
        struct place *place, new = {};
        int r;

        for (place = examiner->places; place < examiner->places + examiner->n_places; place++)
                if (strcmp(place->queue, x->queue) == 0 && strcmp(place->directories, x->directories) == 0) {
                        *ret = place->directory;
                        return 0;
                }

        r = search(x, x->directories, true, &new.directory);
        if (r == 0)
                r = fail(x, -ENOENT,
                        "no main.cf has queue_directory = %.128s; name its directory in "
                        "postfix_config_directories",
                        x->queue);
        if (r < 0)
                return r;

        new.queue = strdup(x->queue);
        new.directories = strdup(x->directories);
        if (!new.queue || !new.directories) {
                place_deinit(&new);
                return -ENOMEM;
        }

        /* If there are more instances than places, further ones share the last place. */
        if (examiner->n_places < PLACES_MAX)
                place = &examiner->places[examiner->n_places++];
        else {
                place = &examiner->places[PLACES_MAX - 1];
                place_deinit(place);
        }
        *place = new;
        *ret = place->directory;
        return 0;
}

static struct profile *find_profile(struct examiner *examiner, uint64_t name) {
        struct profile *oldest = examiner->profiles;

        for (size_t i = 0; i < PROFILES_MAX; i++) {
                struct profile *profile = &examiner->profiles[i];

                if (profile->name == name && profile->used_us > 0)
                        return profile;
                if (profile->used_us < oldest->used_us)
                        oldest = profile;
        }

        configuration_files_deinit(&oldest->files);
        *oldest = (struct profile){ .name = name };
        return oldest;
}

/* Read main.cf again, and the names of the files that it refers to. */
static int read_files(struct examiner *examiner, struct examination *x, const char *directory,
        struct configuration_files *files) {
        _cleanup_(freep) char *data = NULL;
        struct configuration configuration = {
                .directory = directory, .queue = x->queue, .command = examiner->process.command
        };
        char problem[CONFIGURATION_PROBLEM_MAX] = "out of memory";
        int r;

        configuration_files_deinit(files);
        r = read_main_cf(x, directory, &data, &configuration.main_cf.size);
        if (r < 0)
                return r;

        configuration.main_cf.data = data;
        r = configuration_files(&configuration, files, problem);
        return r < 0 ? fail(x, r, "%.64s/main.cf: %s", directory, problem) : 0;
}

/* Add a file to a digest, and note when it changed. */
static int look_at(struct examination *x, const char *path, struct file_state *ret, uint64_t *digest,
        uint64_t *changed_ns) {
        int r;

        r = file_state_read(path, ret);
        if (r < 0)
                return fail(x, r, "%.256s: %s", path, strerror(-r));

        *digest = mix(*digest, ret, sizeof(*ret));
        *changed_ns = MAX(*changed_ns, file_state_changed_ns(ret));
        return 0;
}

static uint64_t directory_changed_ns(const char *path) {
        char copy[CONFIGURATION_PATH_MAX];
        struct file_state state;

        (void) snprintf(copy, sizeof(copy), "%s", path);
        return file_state_read(dirname(copy), &state) < 0 ? 0 : file_state_changed_ns(&state);
}

/* Convert a time of CLOCK_REALTIME in ns to CLOCK_BOOTTIME in µs. */
static uint64_t boottime_of(const struct examiner *examiner, uint64_t ns) {
        int64_t us = (int64_t) (ns / NSEC_PER_USEC) - examiner->clock_offset_us;

        return us > 0 ? (uint64_t) us : 0;
}

static void note_clock(struct examiner *examiner, uint64_t now_us) {
        int64_t offset_us = (int64_t) clock_now(CLOCK_REALTIME) - (int64_t) clock_now(CLOCK_BOOTTIME);

        if (examiner->clock_offset_us != 0 && llabs(offset_us - examiner->clock_offset_us) > CLOCK_SET_US)
                examiner->clock_set_us = now_us;
        examiner->clock_offset_us = offset_us;
}

/* Read the state of all files once. Returns -EAGAIN if main.cf changed meanwhile. */
static int look(
        struct examiner *examiner, struct examination *x, const char *directory, struct profile *profile) {
        struct sight sight = { .before_us = clock_now(CLOCK_BOOTTIME) };
        uint64_t changed_ns = 0, ignored_digest = 0, ignored_ns = 0;
        struct file_state main_cf, again, state;
        char path[CONFIGURATION_PATH_MAX];
        int r;

        (void) snprintf(path, sizeof(path), "%s/main.cf", directory);
        r = look_at(x, path, &main_cf, &sight.digest, &changed_ns);
        if (r >= 0 && memcmp(&main_cf, &profile->main_cf, sizeof(main_cf)) != 0) {
                r = read_files(examiner, x, directory, &profile->files);
                profile->main_cf = r < 0 ? (struct file_state){} : main_cf;
        }
        for (size_t i = 0; r >= 0 && i < profile->files.n; i++)
                r = look_at(x, profile->files.paths[i], &state, &sight.digest, &changed_ns);
        if (r >= 0)
                r = look_at(x, path, &again, &ignored_digest, &ignored_ns);
        if (r < 0)
                return r;
        if (memcmp(&main_cf, &again, sizeof(main_cf)) != 0)
                return fail(x, -EAGAIN, "%.256s is being changed", path);

        /* To remove or rename a file changes its directory. So does a new file there: look at directories only after a change. */
        if (!history_is_of(&profile->history, sight.digest)) {
                changed_ns = MAX(changed_ns, directory_changed_ns(path));
                for (size_t i = 0; i < profile->files.n; i++)
                        changed_ns = MAX(changed_ns, directory_changed_ns(profile->files.paths[i]));
        }

        sight.after_us = clock_now(CLOCK_BOOTTIME);
        note_clock(examiner, sight.after_us);
        sight.clock_set_us = examiner->clock_set_us;
        sight.changed_us = boottime_of(examiner, changed_ns);
        history_note(&profile->history, &sight);
        return 0;
}

/* Return 0 if all these files are those that the agent has at the same paths: it may be in a container. The mounts of its parent
 * are asked for, which is master(8), for the agent itself may be in a chroot. Where its parent cannot be seen, its own have to do. */
static int check_mounts(struct examiner *examiner, struct examination *x, const char *directory,
        const struct profile *profile) {
        _cleanup_(freep) char *ours = NULL, *theirs = NULL;
        struct slice our_text = {}, their_text = {};
        pid_t parent = examiner->process.parent;
        char main_cf[CONFIGURATION_PATH_MAX];
        int r;

        r = process_read_mounts(getpid(), &ours, &our_text.size);
        if (r >= 0)
                r = process_read_mounts(parent > 0 ? parent : x->pid, &theirs, &their_text.size);
        if (r < 0)
                return fail(x, r, "its mounts cannot be seen in /proc (%s)", strerror(-r));

        our_text.data = ours;
        their_text.data = theirs;
        (void) snprintf(main_cf, sizeof(main_cf), "%s/main.cf", directory);
        for (size_t i = 0; i <= profile->files.n; i++) {
                const char *path = i == 0 ? main_cf : profile->files.paths[i - 1];

                if (!mounts_agree(our_text, their_text, path))
                        return fail(x, -EXDEV, "it has another %.256s than this service, as in a container",
                                path);
        }
        return 0;
}

static int examine(struct examiner *examiner, struct examination *x) {
        struct process *process = &examiner->process;
        struct slice service;
        const char *directory;
        struct profile *profile;
        uint64_t line;
        int r;

        r = process_read(x->pid, process);
        if (r < 0)
                return fail(x, r, "its process cannot be seen in /proc (%s)", strerror(-r));
        r = find_directory(examiner, x, &directory);
        if (r < 0)
                return r;

        profile = find_profile(examiner,
                mix(mix(0, directory, strlen(directory)), process->command.data, process->command.size));
        profile->used_us = clock_now(CLOCK_BOOTTIME);
        r = -EAGAIN;
        for (unsigned i = 0; r == -EAGAIN && i < LOOKS_MAX; i++)
                r = look(examiner, x, directory, profile);
        if (r >= 0)
                r = check_mounts(examiner, x, directory, profile);
        if (r < 0)
                return r;

        service = configuration_service(process->command);
        x->service = printable(service);
        x->directory = printable(slice_of(directory));

        line = mix(mix(0, directory, strlen(directory)), service.data, service.size) >> EPOCH_LINE_SHIFT;
        line = MAX(line, UINT64_C(1));
        x->id = mix(profile->history.digest, &profile->name, sizeof(profile->name)) >>
                (64 - EPOCH_LINE_SHIFT);
        x->id |= line << EPOCH_LINE_SHIFT;
        x->started_us = process->started_us;
        x->is_old = !history_covers(&profile->history, process->started_us);
        return 0;
}

void examiner_examine(struct examiner *examiner, struct examination *examination) {
        examination->error = examine(examiner, examination);
}

int examiner_new(struct examiner **ret) {
        *ret = calloc(1, sizeof(**ret));
        return *ret ? 0 : -ENOMEM;
}

struct examiner *examiner_free(struct examiner *examiner) {
        if (!examiner)
                return NULL;

        for (size_t i = 0; i < examiner->n_places; i++)
                place_deinit(&examiner->places[i]);
        for (size_t i = 0; i < PROFILES_MAX; i++)
                configuration_files_deinit(&examiner->profiles[i].files);
        free(examiner);
        return NULL;
}
