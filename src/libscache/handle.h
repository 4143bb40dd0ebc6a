/* libscache: what a handle is made of */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/un.h>

#include "base/slice.h"
#include "wire/buffer.h"
#include "wire/list.h"
#include "wire/message.h"

/* There is one implementation, which never waits: handle_advance() takes a request as far as it goes. The functions
 * that wait do nothing but poll(2) and call it again. */

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

/* All that was asked for, kept until it is answered: on a new connection it may have to be said again, and in another
 * form. */
struct request {
        enum request_kind kind;
        unsigned ttl_s;
        int fd; /* the caller's */
        bool has_text[_TEXT_MAX];
        size_t text_at[_TEXT_MAX]; /* where each begins in `texts` */
        struct wire_buffer texts;  /* each with its NUL */
};

/* What comes next. */
enum step {
        STEP_NONE,       /* no request is under way */
        STEP_CONNECT,    /* connect, at `retry_at_us` */
        STEP_GREETING,   /* the greeting is to come */
        STEP_BOUND,      /* the status of save_dest, then the endpoint is saved */
        STEP_INVITATION, /* the list that asks for the descriptor */
        STEP_STATUS,     /* the status of the request */
        STEP_FOUND,      /* status and properties, the descriptor with them where `is_inline` */
        STEP_DESCRIPTOR, /* the byte with the descriptor */
        STEP_THANKS,     /* our last list is on its way */
};

struct scache {
        struct sockaddr_un address;
        bool is_legacy; /* the service does not greet */
        uint64_t timeout_us;

        int socket;
        bool can_inline; /* what the service offers */
        bool can_save;
        bool can_farewell;
        bool was_lost; /* there was a connection, and the service ended it */

        int epoll_fd;     /* what scache_get_fd() gives out, -1 before that */
        uint32_t watched; /* what it watches `socket` for */

        struct request request;
        enum step step;
        bool is_inline; /* the exchange is one trip */
        uint64_t deadline_us;
        uint64_t retry_at_us;
        uint64_t retry_after_us;
        uint64_t grace_until_us; /* till then, nobody listening is no error */
        unsigned n_cuts;

        struct wire_buffer output;
        bool output_has_fd; /* its first byte takes the request's descriptor along */
        struct wire_buffer input;
        struct wire_parser parser;
        struct wire_passing passing; /* what came with the input */

        int result;
        int found_fd;
        struct wire_buffer properties; /* that were found, each with its NUL */
        size_t property_sizes[2];
        size_t n_properties;
};

/* Begin the request that was put into the handle: as far as it goes now. Returns 0 if it is under way, 1 if it is over. */
int handle_begin(struct scache *scache);

/* Take the request as far as it goes without waiting. */
void handle_advance(struct scache *scache);

/* Drop the connection to the service and all that is on its way. */
void handle_disconnect(struct scache *scache);

/* End the request that is under way. */
void handle_finish(struct scache *scache, int result);

/* Connect to the service. Returns -EAGAIN if there is no room at its door for now, or another negative errno. */
int handle_open(struct scache *scache);

/* What to poll(2) the socket for. */
short handle_events(const struct scache *scache);

/* Keep the descriptor of scache_get_fd() up to date. Returns negative errno. */
int handle_watch(struct scache *scache);

/* Put the lists that the protocol knows into the output. Return negative errno. */
int request_put_save_dest(struct scache *scache);
int request_put_save_endp(struct scache *scache, bool in_one_trip);
int request_put_save(struct scache *scache);
int request_put_find(struct scache *scache, bool in_one_trip);
int request_put_dummy(struct scache *scache);

/* Make a request of its strings, of which those that it has not are NULL. Returns -ENOMEM. */
int request_set(struct request *request, enum request_kind kind, unsigned ttl_s, int fd,
        const char *const texts[_TEXT_MAX]);
