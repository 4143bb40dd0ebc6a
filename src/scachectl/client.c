/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/client.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "wire/message.h"

/* An answer is a page of a list, or a single entry that is larger. */
#define ANSWER_MAX ((size_t) 64 << 20)

struct client {
        int fd;
        uint64_t timeout_us;
        struct wire_buffer output;
        struct wire_buffer input; /* the last answer, and nothing else */
        struct wire_parser parser;
        const char *at; /* the next attribute in the answer, for client_next() */
};

static int wait_for(const struct client *client, short events, uint64_t until_us) {
        struct pollfd pollfd = { .fd = client->fd, .events = events };
        int r;

        do {
                uint64_t now_us = clock_now(CLOCK_MONOTONIC);
                uint64_t left_us = until_us > now_us ? until_us - now_us : 0;
                struct timespec left = { (time_t) (left_us / USEC_PER_SEC),
                        (long) (left_us % USEC_PER_SEC * NSEC_PER_USEC) };

                r = ppoll(&pollfd, 1, &left, NULL);
        } while (r < 0 && errno == EINTR);

        if (r < 0)
                return -errno;
        return r == 0 ? -ETIMEDOUT : 0;
}

/* Wait for a whole list. */
static int read_list(struct client *client, uint64_t until_us) {
        struct wire_buffer *input = &client->input;

        wire_buffer_clear(input);
        wire_parser_reset(&client->parser);
        while (wire_parser_feed(&client->parser, wire_buffer_head(input), wire_buffer_fill(input)) == 0) {
                struct wire_passing passing;
                ssize_t n;
                int r;

                r = wire_buffer_reserve(input, 4096);
                if (r < 0)
                        return r;

                n = wire_receive(client->fd, wire_buffer_tail(input), wire_buffer_room(input), &passing);
                closep(&passing.fd);
                if (n == 0)
                        return -ECONNRESET;
                if (n == -EAGAIN)
                        n = wait_for(client, POLLIN, until_us);
                if (n < 0)
                        return (int) n;
                wire_buffer_produced(input, (size_t) n);
        }

        client->at = wire_buffer_head(input);
        return client->parser.length == wire_buffer_fill(input) ? 0 : -EPROTO;
}

static int connect_to(struct client *client, const char *path, uint64_t until_us) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        if (strlen(path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        memcpy(address.sun_path, path, strlen(path) + 1);

        client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (client->fd < 0)
                return -errno;

        while (connect(client->fd, (const struct sockaddr *) &address, sizeof(address)) < 0) {
                static const struct timespec moment = { 0, 10 * 1000 * 1000 };

                /* The listen queue is full, and there is no event for room in it. */
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
                if (clock_now(CLOCK_MONOTONIC) >= until_us)
                        return -ETIMEDOUT;
                (void) nanosleep(&moment, NULL);
        }

        return 0;
}

int client_new(struct client **ret, const char *path, const char *protocol, uint64_t timeout_us) {
        uint64_t until_us = usec_add(clock_now(CLOCK_MONOTONIC), timeout_us);
        _cleanup_(client_freep) struct client *client = NULL;
        struct client_attribute first;
        int r;

        client = calloc(1, sizeof(*client));
        if (!client)
                return -ENOMEM;
        client->fd = -1;
        client->timeout_us = timeout_us;
        client->output = client->input = WIRE_BUFFER_INIT(ANSWER_MAX);

        r = connect_to(client, path, until_us);
        if (r >= 0)
                r = read_list(client, until_us);
        if (r < 0)
                return r;
        if (!client_next(client, &first) || !slice_equal(first.name, SLICE("protocol")) ||
                !slice_equal(first.value, slice_of(protocol)))
                return -EPROTO;

        *ret = STEAL(client);
        return 0;
}

struct client *client_free(struct client *client) {
        if (!client)
                return NULL;

        closep(&client->fd);
        wire_buffer_release(&client->output);
        wire_buffer_release(&client->input);
        free(client);
        return NULL;
}

static int send_list(
        struct client *client, const struct client_attribute attributes[], size_t n, uint64_t until_us) {
        struct wire_buffer *output = &client->output;
        int r = 0;

        wire_buffer_clear(output);
        for (size_t i = 0; r >= 0 && i < n; i++)
                r = wire_put(output, attributes[i].name, attributes[i].value);
        if (r >= 0)
                r = wire_put_end(output);

        while (r >= 0 && wire_buffer_fill(output) > 0) {
                ssize_t sent;

                sent = wire_send(client->fd, wire_buffer_head(output), wire_buffer_fill(output), -1);
                if (sent > 0)
                        wire_buffer_consumed(output, (size_t) sent);
                else
                        r = sent == -EAGAIN ? wait_for(client, POLLOUT, until_us) : (int) sent;
        }

        return r == -EPIPE ? -ECONNRESET : r;
}

int client_ask(struct client *client, const struct client_attribute attributes[], size_t n_attributes) {
        uint64_t until_us = usec_add(clock_now(CLOCK_MONOTONIC), client->timeout_us);
        struct client_attribute status;
        int r;

        r = send_list(client, attributes, n_attributes, until_us);
        if (r < 0)
                return r;
        r = read_list(client, until_us);
        if (r < 0)
                return r;

        if (!client_next(client, &status) || !slice_equal(status.name, SLICE("status")))
                return -EPROTO;
        return slice_equal(status.value, SLICE("0"))    ? 0
                : slice_equal(status.value, SLICE("2")) ? -EACCES
                                                        : -EINVAL;
}

bool client_next(struct client *client, struct client_attribute *ret) {
        /* The parser has seen the end of the list, so there is always a NUL ahead. */
        ret->name = slice_of(client->at);
        if (ret->name.size == 0)
                return false;

        ret->value = slice_of(client->at + ret->name.size + 1);
        client->at = ret->value.data + ret->value.size + 1;
        return true;
}
