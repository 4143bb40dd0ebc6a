/* daemon: the event loop: agents and connections in one epoll set, in front of sd-event */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

/* An exchange is a handful of system calls, so each one counts: agents and parked connections are watched by an epoll
 * set of our own, at no memory beyond the kernel's. Timers, signals, listening sockets and the watchdog are
 * sd-event's; its descriptor is a member of our set and costs nothing while nothing of the kind happens. */

struct loop;

/* What a descriptor in the set is. Within one round, connections come first: an agent that asks in the same moment in
 * which a connection dies must not get it any more. */
enum loop_kind {
        LOOP_CONNECTION,
        LOOP_AGENT,
        _LOOP_KIND_MAX,
};

/* Something happened to OBJECT; EVENTS as of epoll_wait(2). A handler may free its own object, and any object of a later
 * kind only through loop_remove(). */
typedef void (*loop_ready_fn)(void *userdata, void *object, uint32_t events);

/* Called once each round, after all handlers. Returns for how many µs at most to wait before the next round: 0 for work
 * left over, USEC_INFINITY for none. */
typedef uint64_t (*loop_round_fn)(void *userdata);

/* Make a loop around an sd-event object, which it refers to. Returns negative errno. */
int loop_new(struct loop **ret, sd_event *event);
struct loop *loop_free(struct loop *loop);

void loop_on_ready(struct loop *loop, enum loop_kind kind, loop_ready_fn fn, void *userdata);
void loop_on_round(struct loop *loop, loop_round_fn fn, void *userdata);

/* Watch a descriptor for EVENTS; OBJECT must stay where it is until loop_remove(). Returns negative errno. */
int loop_add(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events);
int loop_modify(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events);

/* Stop watching. To be called before close(2): a socket that others hold too would stay in the set. */
void loop_remove(struct loop *loop, int fd, void *object);

/* The time of this round, as of the first question for it: CLOCK_BOOTTIME in µs. */
uint64_t loop_now(struct loop *loop);

/* To be called after changing an sd-event source outside of its own callbacks. */
void loop_touch(struct loop *loop);

sd_event *loop_event(const struct loop *loop);

/* Run one round. TIMEOUT says for how many µs at most to wait for events, and afterwards how long the next round may.
 * Returns negative errno. */
int loop_run_once(struct loop *loop, uint64_t *timeout_us);

/* Run until sd_event_exit(). Returns its code, or negative errno. */
int loop_run(struct loop *loop);
