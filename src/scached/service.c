/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scached/service.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sysexits.h>
#include <unistd.h>

#include "agents/agents.h"
#include "agents/server.h"
#include "base/cleanup.h"
#include "base/clock.h"
#include "base/printable.h"
#include "cache/accounts.h"
#include "custody/descriptor.h"
#include "custody/disposal.h"
#include "daemon/limits.h"
#include "daemon/notify.h"
#include "daemon/timer.h"
#include "epochs/epochs.h"
#include "handover/handover.h"
#include "handover/passed.h"
#include "scached/arrivals.h"
#include "scached/listeners.h"
#include "scached/status.h"

/* The number of entries that expire before agents get a turn. */
#define EXPIRE_BATCH 256

/* How long agents may take to finish their exchanges when the daemon exits. All others wait as long, so this is less than the rest
 * of a restart takes. */
#define LEAVING_TIME_US (UINT64_C(50) * USEC_PER_MSEC)

/* The largest answer: two properties, or a page of a list. Parked connections may have come in requests that were larger than
 * request_size_limit is now. */
#define SCRATCH_MAX (2 * SETTINGS_REQUEST_MAX + 4096)

struct service {
        struct server server;
        const struct service_options *options;
        struct passed *passed;
        struct notify *notify;
        struct disposal *disposal;
        struct limits limits;
        struct epochs *epochs;
        struct agents *agents;
        struct arrivals *arrivals;
        struct status status;
        struct listeners *listeners; /* NULL while leaving */
        sd_event *event;
        struct loop_timer expiry_timer;
        struct loop_timer statistics_timer;
        struct loop_timer idle_timer;
        struct loop_timer leaving_timer;
        uint64_t idle_since_us;  /* 0 while there is something to stay for */
        uint64_t reported_at_us; /* when the last interval of the statistics ended */
        time_t limit_told_for;   /* the start of that interval of the statistics */
        uint64_t n_let_go;       /* entries that were evicted at a limit so far */
        bool expiry_is_behind;
        bool is_leaving;
        bool is_last; /* no process follows that takes the parked connections */
};

static void on_settings_report(void *userdata, int priority, const char *message) {
        if (priority <= LOG_ERR)
                journal_say(userdata, SETTINGS_BAD, NULL, "%s", message);
        else
                journal_say(userdata, SETTINGS_DOUBTFUL, NULL, "%s", message);
}

int service_load_settings(
        struct journal *journal, const struct service_options *options, struct settings **ret) {
        const struct settings_request request = {
                .config_directory = options->config_directory,
                .overrides = options->overrides,
                .n_overrides = options->n_overrides,
                .process_id = getpid(),
        };

        return settings_load(&request, on_settings_report, journal, ret);
}

static struct limits current_limits(const struct settings *settings) {
        return limits_share(limits_descriptors(), settings->connection_limit, settings->agent_limit);
}

/* Is there nothing to stay for? What agents that are gone have not read counts against our limits, and the next process would not
 * know of it. */
static bool is_idle(const struct service *service) {
        const struct cache_counts *counts = cache_counts(service->server.cache);

        return service->server.statistics.agents == 0 && counts->connections == 0 && counts->lent == 0 &&
                counts->bindings == 0 && custody_leaving(service->server.custody) == 0 &&
                cache_accounts(service->server.cache)->total[ACCOUNT_IN_FLIGHT] == 0;
}

/* Accept no new agents: they wait in the service manager's socket for the next process. Let the connected ones finish their
 * exchanges: a Postfix process that loses the cache twice in a row does not use it again. */
_cold_ static void leave(struct service *service, const char *why) {
        if (service->is_leaving)
                return;

        journal_say(service->server.journal, LEAVING, NULL, "Exiting: %s.", why);
        (void) notify_say(service->notify, "STOPPING=1", NULL, 0);
        notify_status(service->notify, "Exiting.");
        service->is_leaving = true;
        service->listeners = listeners_free(service->listeners);
        arrivals_hurry(service->arrivals);
        agents_leave(service->agents);
        loop_timer_set(&service->leaving_timer, usec_add(clock_now(CLOCK_BOOTTIME), LEAVING_TIME_US));
}

static void on_leaving_timer(void *userdata) {
        struct service *service = userdata;

        (void) sd_event_exit(service->event, EX_OK);
}

static void note_idle(struct service *service) {
        uint64_t max_idle_us = service->server.settings->max_idle_us, at_us;

        if (max_idle_us == 0 || !is_idle(service)) {
                service->idle_since_us = 0;
                return;
        }

        if (service->idle_since_us == 0)
                service->idle_since_us = loop_now(service->server.loop);

        /* A reload may have made max_idle shorter. If the timer comes too early, this sets it again. */
        at_us = usec_add(service->idle_since_us, max_idle_us);
        if (at_us < service->idle_timer.at_us)
                loop_timer_set(&service->idle_timer, at_us);
}

static void on_idle_timer(void *userdata) {
        struct service *service = userdata;
        uint64_t max_idle_us = service->server.settings->max_idle_us;

        /* If an agent came and went meanwhile, the idle time began later. An agent that connects from here on waits in
         * the service manager's socket, which starts the next process. */
        if (service->idle_since_us > 0 &&
                clock_now(CLOCK_BOOTTIME) >= usec_add(service->idle_since_us, max_idle_us))
                leave(service, "idle, and nothing is parked");
}

/* Expire entries, and set the timer for the next one. The timer is only moved to an earlier time: if the entry that it was set
 * for is found or renewed, it comes once for nothing. */
static void expire(struct service *service) {
        struct server *server = &service->server;
        uint64_t next_us = cache_next_deadline(server->cache);

        /* The timer is set already, or there is no entry. */
        if (next_us >= service->expiry_timer.at_us && !service->expiry_is_behind)
                return;

        service->expiry_is_behind = false;
        if (next_us <= loop_now(server->loop)) {
                service->expiry_is_behind =
                        cache_expire(server->cache, loop_now(server->loop), EXPIRE_BATCH);
                next_us = cache_next_deadline(server->cache);
        }

        if (next_us < service->expiry_timer.at_us && !service->expiry_is_behind)
                loop_timer_set(&service->expiry_timer, next_us);
}

/* Nothing to do: expire() follows in this round. */
static void on_expiry_timer(_unused_ void *userdata) {
}

/* Log once in each interval of the statistics that a limit of the cache was reached; the statistics say how often. */
static void note_limits(struct service *service) {
        const struct statistics *statistics = &service->server.statistics;
        const struct cache_counts *counts = cache_counts(service->server.cache);
        uint64_t n_let_go = counts->connections_let_go + counts->bindings_let_go;

        if (n_let_go == service->n_let_go)
                return;

        service->n_let_go = n_let_go;
        if (service->limit_told_for == statistics->interval_start)
                return;

        service->limit_told_for = statistics->interval_start;
        journal_say(service->server.journal, LIMIT_REACHED, NULL,
                "Cache limit reached (%" PRIu64 " connection%s, %" PRIu64 " binding%s, %" PRIu64
                " bytes): evicting the entries of user %u that expire first.",
                counts->connections, plural(counts->connections), counts->bindings, plural(counts->bindings),
                counts->bytes, cache_gave_way(service->server.cache));
}

/* Descriptors that wait to be closed may use a reserve, and the room that parked connections leave. */
static void note_room(struct service *service) {
        const struct cache_counts *counts = cache_counts(service->server.cache);
        uint64_t parked = MIN(counts->connections + counts->lent, service->limits.connections);

        disposal_set_room(service->disposal, service->limits.closing + service->limits.connections - parked);
}

static uint64_t on_round(void *userdata) {
        struct service *service = userdata;
        bool is_behind;
        uint64_t wait_us;

        wait_us = agents_take_turns(service->agents);
        expire(service);
        is_behind = epochs_drain(service->epochs);
        is_behind = custody_let_go(service->server.custody) || service->expiry_is_behind || is_behind;
        note_limits(service);
        if (service->is_leaving) {
                wait_us = MIN(wait_us, agents_dismiss(service->agents));
                if (service->server.statistics.agents == 0) {
                        (void) sd_event_exit(service->event, EX_OK);
                        loop_touch(service->server.loop);
                }
        } else {
                status_touch(&service->status);
                note_idle(service);
        }

        note_room(service);
        disposal_work(service->disposal);
        return is_behind ? 0 : wait_us;
}

static void set_statistics_timer(struct service *service) {
        loop_timer_set(&service->statistics_timer,
                usec_add(service->reported_at_us, service->server.settings->status_update_time_us));
}

static void on_statistics_timer(void *userdata) {
        struct service *service = userdata;

        statistics_report(&service->server.statistics, service->server.journal, time(NULL));
        service->reported_at_us = clock_now(CLOCK_BOOTTIME);
        set_statistics_timer(service);
}

static int on_leave_signal(
        _unused_ sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
        struct service *service = userdata;

        if (info->ssi_signo == SIGUSR1)
                service->is_last = true;
        leave(service,
                service->is_last                    ? "told to stop and to keep nothing"
                        : info->ssi_signo == SIGINT ? "interrupted"
                                                    : "told to stop");
        return 0;
}

/* Tell the service manager how long the daemon may be silent, and send two signs of life in that time. */
static void set_watchdog(struct service *service, uint64_t timeout_us) {
        (void) notify_sayf(service->notify, "WATCHDOG_USEC=%" PRIu64, timeout_us);
        notify_watchdog(service->notify, timeout_us / 2);
}

/* Put new settings into effect. The service owns them from here on, and the old ones are freed. Returns -ENOMEM; then the old
 * ones stay, and the caller still owns the new ones. */
static int apply_settings(struct service *service, struct settings *settings) {
        struct server *server = &service->server;
        struct limits limits = current_limits(settings);
        struct cache_limits cache_limits = { limits.connections, settings->memory_limit,
                settings->history_limit };
        int r;

        r = journal_set_identity(server->journal, settings->identifier, settings->syslog_facility);
        if (r < 0)
                return r;

        service->limits = limits;
        agents_set_limits(service->agents,
                &(struct agents_limits){ limits.agents, settings->agent_memory_limit, limits.in_flight });
        cache_tell_time(server->cache, loop_now(server->loop));
        cache_set_limits(server->cache, &cache_limits);
        set_watchdog(service, settings->daemon_timeout_us);
        if (settings != server->settings)
                settings_free(server->settings);
        server->settings = settings;
        agents_reschedule(service->agents);
        set_statistics_timer(service);
        return 0;
}

static int on_reload_signal(
        _unused_ sd_event_source *source, _unused_ const struct signalfd_siginfo *info, void *userdata) {
        struct service *service = userdata;
        struct journal *journal = service->server.journal;
        _cleanup_(settings_freep) struct settings *settings = NULL;
        int r;

        if (service->is_leaving)
                return 0;

        (void) notify_sayf(
                service->notify, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64, clock_now(CLOCK_MONOTONIC));

        r = service_load_settings(journal, service->options, &settings);
        if (r >= 0)
                r = apply_settings(service, settings);
        if (r >= 0) {
                STEAL(settings);
                journal_say(journal, RELOADED, NULL, "Read the settings again.");
        } else
                journal_say(journal, SETTINGS_BAD, NULL,
                        "Could not use the new settings, keeping the old ones: %s.", strerror(-r));

        (void) notify_say(service->notify, "READY=1", NULL, 0);
        return 0;
}

static int add_signals(struct service *service) {
        static const struct {
                int signal;
                sd_event_signal_handler_t fn;
        } signals[] = {
                { SIGTERM, on_leave_signal },
                { SIGINT, on_leave_signal },
                { SIGUSR1, on_leave_signal },
                { SIGHUP, on_reload_signal },
        };

        for (size_t i = 0; i < ELEMENTSOF(signals); i++) {
                sigset_t set;
                int r;

                (void) sigemptyset(&set);
                (void) sigaddset(&set, signals[i].signal);
                if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                        return -errno;
                r = sd_event_add_signal(service->event, NULL, signals[i].signal, signals[i].fn, service);
                if (r < 0)
                        return r;
        }

        return 0;
}

/* Make the cache, without limits: apply_settings() sets them. */
static int make_cache(struct service *service) {
        struct siphash_key key;

        if (getrandom(&key, sizeof(key), 0) != sizeof(key))
                return -errno;

        return cache_new(&service->server.cache, &key, &(struct cache_limits){});
}

static struct handover handover_of(struct service *service) {
        struct server *server = &service->server;

        return (struct handover){ server->cache, server->custody, service->disposal, &server->statistics,
                server->journal, service->notify };
}

/* Make everything except the listeners. */
static int prepare(struct service *service) {
        struct server *server = &service->server;
        struct limits limits = current_limits(server->settings);
        struct handover handover;
        int r;

        r = sd_event_new(&service->event);
        if (r >= 0)
                r = loop_new(&server->loop, service->event);
        if (r >= 0)
                r = disposal_new(&service->disposal, server->loop, server->journal, DISPOSAL_WORKERS_MAX);
        if (r >= 0)
                r = notify_new(&service->notify, server->loop);
        if (r >= 0)
                r = loop_timer_init(&service->expiry_timer, server->loop, on_expiry_timer, service);
        if (r >= 0)
                r = loop_timer_init(&service->statistics_timer, server->loop, on_statistics_timer, service);
        if (r >= 0)
                r = loop_timer_init(&service->idle_timer, server->loop, on_idle_timer, service);
        if (r >= 0)
                r = loop_timer_init(&service->leaving_timer, server->loop, on_leaving_timer, service);
        if (r >= 0)
                r = make_cache(service);
        if (r >= 0 && !(server->descriptors = descriptors_new()))
                r = -ENOMEM;
        if (r >= 0)
                r = custody_new(&server->custody, server->loop, server->cache, &server->statistics,
                        service->disposal, limits.leaving);
        if (r >= 0)
                r = agents_new(&service->agents, server, service->disposal);
        if (r >= 0)
                r = epochs_new(&service->epochs, server->loop, server->cache, server->journal);
        if (r >= 0)
                r = arrivals_new(
                        &service->arrivals, server, service->agents, service->disposal, service->epochs);
        if (r >= 0)
                r = status_init(
                        &service->status, server->loop, server->cache, &server->statistics, service->notify);
        if (r >= 0)
                r = add_signals(service);
        service->reported_at_us = clock_now(CLOCK_BOOTTIME);
        if (r >= 0)
                r = apply_settings(service, server->settings);
        if (r < 0)
                return r;

        loop_on_round(server->loop, on_round, service);
        server->statistics.interval_start = time(NULL);
        handover = handover_of(service);
        handover_take(&handover, service->passed);
        return 0;
}

static int start(struct service *service) {
        int r;

        r = passed_new(&service->passed);
        if (r >= 0)
                r = prepare(service);
        if (r < 0)
                return r;

        /* Last: from here on, agents can connect. */
        r = listeners_new(&service->listeners, &service->server, service->arrivals, service->disposal,
                service->passed);
        service->passed = passed_free(service->passed, service->disposal);
        return r;
}

/* Keep the parked connections for the next process. If there is none, or they cannot be kept, close them after their
 * farewell. */
static void part_with_everything(struct service *service) {
        struct server *server = &service->server;
        const struct handover handover = handover_of(service);
        size_t n_parked = (size_t) cache_counts(server->cache)->connections;

        /* Report first: the next process counts on from there. Without a next process, the last report follows below. */
        if (!service->is_last) {
                statistics_report(&server->statistics, server->journal, time(NULL));
                limits_raise_for_handover();
                handover_save(&handover);
        }

        /* Connections that came back from agents at the end may have departed already. Peers get no time to answer. */
        custody_hurry(server->custody, true);
        do
                while (custody_let_go(server->custody))
                        ;
        while (cache_let_one_go(server->cache, DEPARTURE_FLUSHED));

        if (!service->is_last)
                return;
        if (n_parked > 0)
                journal_say(server->journal, PARTED, NULL,
                        "Drained %zu connection%s: each was closed after its farewell.", n_parked,
                        plural(n_parked));
        statistics_report(&server->statistics, server->journal, time(NULL));
}

static void stop(struct service *service) {
        struct server *server = &service->server;

        passed_free(service->passed, service->disposal);
        listeners_free(service->listeners);
        arrivals_free(service->arrivals);
        agents_free(service->agents);
        epochs_free(service->epochs);

        if (server->custody)
                part_with_everything(service);

        status_release(&service->status);
        custody_free(server->custody);
        cache_free(server->cache);
        disposal_free(service->disposal);
        descriptors_free(server->descriptors);
        wire_buffer_release(&server->scratch);
        loop_timer_release(&service->expiry_timer);
        loop_timer_release(&service->statistics_timer);
        loop_timer_release(&service->idle_timer);
        loop_timer_release(&service->leaving_timer);
        notify_free(service->notify);
        loop_free(server->loop);
        sd_event_unref(service->event);
        settings_free(server->settings);
}

static struct service service_of(
        struct journal *journal, const struct service_options *options, struct settings *settings) {
        return (struct service){
                .server = {
                        .journal = journal,
                        .settings = settings,
                        .scratch = WIRE_BUFFER_INIT(SCRATCH_MAX),
                },
                .options = options,
        };
}

int service_run(struct journal *journal, const struct service_options *options, struct settings *settings) {
        struct service service = service_of(journal, options, settings);
        int r;

        r = start(&service);
        if (r >= 0) {
                journal_say(journal, STARTED, NULL, "Serving agents.");
                (void) notify_say(service.notify, "READY=1", NULL, 0);
                r = loop_run(service.server.loop);
        }
        /* After a failure, the next process may be a long time away. */
        if (r < 0)
                service.is_last = true;
        stop(&service);

        if (r == -ENOENT) {
                journal_say(journal, NO_SOCKETS, NULL,
                        "No listening socket was passed: start the socket instead, with \"systemctl enable "
                        "--now scached.socket\".");
                return EX_USAGE;
        }
        if (r < 0) {
                journal_say(journal, FAILED, NULL, "Could not serve: %s.", strerror(-r));
                return EX_OSERR;
        }
        return r;
}

void service_part(struct journal *journal, const struct service_options *options) {
        static const struct settings_request defaults = {};
        struct settings *settings;
        struct service service;

        if (settings_load_texts(&defaults, NULL, NULL, NULL, NULL, &settings) < 0)
                return;

        service = service_of(journal, options, settings);
        service.is_last = true;
        if (passed_new(&service.passed) >= 0 && passed_has_stored(service.passed))
                (void) prepare(&service);
        stop(&service);
}
