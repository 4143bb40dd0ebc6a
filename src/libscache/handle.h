/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* libscache: the inside of a handle */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/slice.h"
#include "wire/buffer.h"
#include "wire/list.h"
#include "wire/message.h"

/* There is one implementation, which never waits: handle_advance() takes a request as far as possible. The functions that
 * wait call poll(2) and handle_advance() in turn. */

enum request_kind {
        REQUEST_CONNECT,
        REQUEST_SAVE_ENDP,
        REQUEST_SAVE_DEST,
        REQUEST_SAVE,
        REQUEST_FIND_ENDP,
        REQUEST_FIND_DEST,
};

/* The strings a request may have. */
enum request_text {
        TEXT_ENDPOINT,
        TEXT_PROPERTY,
        TEXT_DESTINATION,
        TEXT_DESTINATION_PROPERTY,
        TEXT_FAREWELL,
        _TEXT_MAX,
};

/* The arguments of a request, kept until it is answered: on a new connection, the request may have to be sent again, and in
 * another form. */
struct request {
        enum request_kind kind;
        unsigned ttl_s;
        int fd; /* belongs to the caller */
        bool has_text[_TEXT_MAX];
        size_t text_at[_TEXT_MAX]; /* the offset of each in `texts` */
        struct wire_buffer texts;  /* each with its NUL */
};

/* The next step of a request. */
enum step {
        STEP_NONE,       /* no request is in progress */
        STEP_CONNECT,    /* connect, at `retry_at_us` */
        STEP_GREETING,   /* receive the greeting */
        STEP_BOUND,      /* receive the status of save_dest, then save the endpoint */
        STEP_INVITATION, /* receive the list that asks for the descriptor */
        STEP_STATUS,     /* receive the status of the request */
        STEP_FOUND,      /* receive status and properties, and with `is_inline` the descriptor */
        STEP_DESCRIPTOR, /* receive the byte with the descriptor */
        STEP_THANKS,     /* send our last list */
};

struct scache {
        struct sockaddr_un address;
        bool is_legacy; /* the service does not greet */
        uint64_t timeout_us;
        char *epoch; /* NULL: none */

        int socket;
        bool can_inline; /* these four: announced by the service */
        bool can_save;
        bool can_farewell;
        bool can_epoch;
        bool was_lost; /* the service closed an earlier connection */

        int epoll_fd;     /* the descriptor of scache_get_fd(), -1 before its first call */
        uint32_t watched; /* the events for which it watches `socket` */

        struct request request;
        enum step step;
        bool is_inline; /* the exchange is one trip */
        uint64_t deadline_us;
        uint64_t retry_at_us;
        uint64_t retry_after_us;
        uint64_t grace_until_us; /* until then it is no error if nobody listens */
        unsigned n_cuts;

        struct wire_buffer output;
        bool output_has_fd; /* send the request's descriptor with its first byte */
        struct wire_buffer input;
        struct wire_parser parser;
        struct wire_passing passing; /* the descriptor that came with the input */

        int result;
        int found_fd;
        struct wire_buffer properties; /* of the connection found, each with its NUL */
        size_t property_sizes[2];
        size_t n_properties;
};

/* Begin the request in the handle, and take it as far as possible. Returns 0 if it is in progress, 1 if it has finished. */
int handle_begin(struct scache *scache);

/* Take the request as far as possible without waiting. */
void handle_advance(struct scache *scache);

/* Close the connection to the service, and drop all input and output. */
void handle_disconnect(struct scache *scache);

/* Finish the request in progress with this result: 0 or a negative errno. */
void handle_finish(struct scache *scache, int result);

/* Connect to the service. Returns -EAGAIN if its listen queue is full, or another negative errno. */
int handle_open(struct scache *scache);

/* Return the events for which to poll(2) the socket. */
short handle_events(const struct scache *scache);

/* Keep the descriptor of scache_get_fd() up to date. Returns negative errno. */
int handle_watch(struct scache *scache);

/* Put a list of the protocol into the output. Return negative errno. */
int request_put_save_dest(struct scache *scache);
int request_put_save_endp(struct scache *scache, bool in_one_trip);
int request_put_save(struct scache *scache);
int request_put_find(struct scache *scache, bool in_one_trip);
int request_put_dummy(struct scache *scache);

/* Set up a request and copy its texts; a text that the request does not have is NULL. Returns -ENOMEM. */
int request_set(struct request *request, enum request_kind kind, unsigned ttl_s, int fd,
        const char *const texts[_TEXT_MAX]);
