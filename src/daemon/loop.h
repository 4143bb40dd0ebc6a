/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon: the event loop: connections, agents and listening sockets in one epoll set, in front of sd-event */
#pragma once

#include <stdint.h>
#include <systemd/sd-event.h>

/* An exchange is a few system calls, so each one counts: they are in an epoll set of our own, which needs no memory but the
 * kernel's. Timers and signals belong to sd-event; its descriptor is a member of our set, and costs nothing while they have no
 * event. */

struct loop;

/* The kind of a descriptor in the set, in the order of their turns in a round: if a connection dies in the round in which an
 * agent asks for it, the agent must not get it; and agents that are connected come before those that want to be. */
enum loop_kind {
        LOOP_CONNECTION,
        LOOP_AGENT,
        LOOP_DISPOSAL,
        LOOP_LISTENER,
        _LOOP_KIND_MAX,
};

/* Called for EVENTS of epoll_wait(2) on OBJECT. A handler may free its own object, and objects of a later kind after
 * loop_remove(). */
typedef void (*loop_ready_fn)(void *userdata, void *object, uint32_t events);

/* Called once each round, after all handlers. Returns the longest time until the next round in µs: 0 if there is work left,
 * USEC_INFINITY if there is none. */
typedef uint64_t (*loop_round_fn)(void *userdata);

/* Make a loop around an sd-event object, of which it takes a reference. Returns negative errno. */
int loop_new(struct loop **ret, sd_event *event);
struct loop *loop_free(struct loop *loop);

void loop_on_ready(struct loop *loop, enum loop_kind kind, loop_ready_fn fn, void *userdata);
void loop_on_round(struct loop *loop, loop_round_fn fn, void *userdata);

/* Watch a descriptor for EVENTS; OBJECT must stay where it is until loop_remove(). Returns negative errno. */
int loop_add(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events);
int loop_modify(struct loop *loop, int fd, enum loop_kind kind, void *object, uint32_t events);

/* Stop watching. Call this before close(2): otherwise a socket of which others have a copy stays in the set. */
void loop_remove(struct loop *loop, int fd, void *object);

/* Return the time of this round, read at the first call in it: CLOCK_BOOTTIME in µs. */
uint64_t loop_now(struct loop *loop);

/* Call this after changing an sd-event source outside of its own callbacks. */
void loop_touch(struct loop *loop);

sd_event *loop_event(const struct loop *loop);

/* Run one round. TIMEOUT is the longest wait for events in µs, and is set to that of the next round. Returns negative
 * errno. */
int loop_run_once(struct loop *loop, uint64_t *timeout_us);

/* Run until sd_event_exit(). Returns its code, or negative errno. */
int loop_run(struct loop *loop);
