/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "libscache/handle.h"

/* A request from its first byte to its result, whatever the service may do in between. */

/* The bytes to receive at once. Most answers are shorter. */
#define RECEIVE_SIZE ((size_t) 1024)

/* If the service closes the connection in an exchange, the exchange is repeated: the service has restarted, or has made room
 * for another agent. After so many times in a row, it is an error. */
#define CUTS_MAX 3

/* After that, nobody may listen for so long: the service may restart together with its sockets. */
#define GRACE_US USEC_PER_SEC

/* The first wait between two attempts to connect, which doubles up to the last one. */
#define RETRY_FIRST_US (1 * USEC_PER_MSEC)
#define RETRY_LAST_US  (50 * USEC_PER_MSEC)

void handle_finish(struct scache *scache, int result) {
        /* After these errors the service waits for the next request. After others, its state is unknown. */
        if (result < 0 && result != -ENOENT && result != -EINVAL && result != -EREMOTEIO)
                handle_disconnect(scache);

        /* The request is complete even if the last `dummy` could not be sent. */
        if (scache->step == STEP_THANKS && scache->found_fd >= 0)
                result = 0;
        scache->step = STEP_NONE;
        scache->result = result;
}

static void try_again(struct scache *scache, uint64_t now_us) {
        scache->step = STEP_CONNECT;
        scache->retry_at_us = usec_add(now_us, scache->retry_after_us);
        scache->retry_after_us = MIN(MAX(scache->retry_after_us * 2, RETRY_FIRST_US), RETRY_LAST_US);
}

/* The service has closed the connection. */
static void on_cut(struct scache *scache) {
        uint64_t now_us = clock_now(CLOCK_MONOTONIC);

        handle_disconnect(scache);
        if (scache->step == STEP_THANKS || scache->n_cuts++ >= CUTS_MAX) {
                handle_finish(scache, -ECONNRESET);
                return;
        }

        scache->grace_until_us = usec_add(now_us, GRACE_US);
        try_again(scache, now_us);
}

static int begin_save_endp(struct scache *scache) {
        scache->is_inline = scache->can_inline;
        scache->step = scache->is_inline ? STEP_STATUS : STEP_INVITATION;
        return request_put_save_endp(scache, scache->is_inline);
}

/* Put the request into the output. The service must be ready for it. */
static int begin_exchange(struct scache *scache) {
        if (scache->epoch && !scache->can_epoch && scache->request.kind != REQUEST_CONNECT)
                return -EOPNOTSUPP;

        switch (scache->request.kind) {
        case REQUEST_CONNECT:
                handle_finish(scache, 0);
                return 0;
        case REQUEST_SAVE_ENDP:
                return begin_save_endp(scache);
        case REQUEST_SAVE_DEST:
                scache->step = STEP_STATUS;
                return request_put_save_dest(scache);
        case REQUEST_SAVE:
                scache->step = scache->can_save ? STEP_STATUS : STEP_BOUND;
                return scache->can_save ? request_put_save(scache) : request_put_save_dest(scache);
        case REQUEST_FIND_ENDP:
        case REQUEST_FIND_DEST:
                scache->is_inline = scache->can_inline;
                scache->step = STEP_FOUND;
                return request_put_find(scache, scache->is_inline);
        default:
                return -EINVAL;
        }
}

/* Connect, if it is time to. Returns whether there was anything to do. */
static int on_connect(struct scache *scache) {
        uint64_t now_us = clock_now(CLOCK_MONOTONIC);
        int r;

        if (now_us < scache->retry_at_us)
                return 0;

        r = handle_open(scache);
        if (r == -EAGAIN || ((r == -ECONNREFUSED || r == -ENOENT) && now_us < scache->grace_until_us)) {
                try_again(scache, now_us);
                return 0;
        }
        if (r < 0)
                return r == -ENOENT ? -ECONNREFUSED : r; /* -ENOENT is a miss */

        if (scache->is_legacy) {
                r = begin_exchange(scache);
                return r < 0 ? r : 1;
        }
        scache->step = STEP_GREETING;
        return 0;
}

static bool has_word(struct slice words, struct slice word) {
        const char *p = words.data, *end = words.data + words.size;

        while (p < end) {
                const char *space = memchr(p, ' ', (size_t) (end - p));
                const char *stop = space ? space : end;

                if (slice_equal((struct slice){ p, (size_t) (stop - p) }, word))
                        return true;
                p = stop + 1;
        }
        return false;
}

/* Each step below takes the list that came. Returns negative errno to end the request. */

static int on_greeting(struct scache *scache, const struct wire_list *list) {
        if (list->n_attributes < 1 || !slice_equal(wire_list_name(list, 0), SLICE("protocol")) ||
                !slice_equal(wire_list_value(list, 0), SLICE("connection_cache_protocol")))
                return -EPROTO;

        for (size_t i = 1; i < MIN(list->n_attributes, (size_t) WIRE_ATTRIBUTES_MAX); i++) {
                struct slice words = wire_list_value(list, i);

                if (!slice_equal(wire_list_name(list, i), SLICE("extensions")))
                        continue;
                scache->can_inline = has_word(words, SLICE("inline"));
                scache->can_save = has_word(words, SLICE("save"));
                scache->can_farewell = has_word(words, SLICE("farewell"));
                scache->can_epoch = has_word(words, SLICE("epoch"));
        }

        return begin_exchange(scache);
}

/* The status that a list begins with, as an errno: 0, -EINVAL, or FAILED. */
static int status_of(const struct wire_list *list, size_t n_properties, int failed) {
        struct slice status;

        if (list->n_attributes != 1 + n_properties || !slice_equal(wire_list_name(list, 0), SLICE("status")))
                return -EPROTO;
        for (size_t i = 1; i <= n_properties; i++)
                if (!slice_equal(wire_list_name(list, i), SLICE("property")))
                        return -EPROTO;

        status = wire_list_value(list, 0);
        if (slice_equal(status, SLICE("0")))
                return 0;
        if (slice_equal(status, SLICE("1")))
                return -EINVAL;
        return slice_equal(status, SLICE("2")) ? failed : -EPROTO;
}

static int on_bound(struct scache *scache, const struct wire_list *list) {
        int r;

        r = status_of(list, 0, -EREMOTEIO);
        return r < 0 ? r : begin_save_endp(scache);
}

static int on_invitation(struct scache *scache, const struct wire_list *list) {
        int r;

        if (list->n_attributes != 1 || !slice_equal(wire_list_name(list, 0), SLICE("dummy"))) {
                r = status_of(list, 0, -EREMOTEIO);
                return r < 0 ? r : -EPROTO;
        }

        r = wire_put_end(&scache->output);
        if (r < 0)
                return r;
        scache->output_has_fd = true;
        scache->step = STEP_STATUS;
        return 0;
}

static int on_status(struct scache *scache, const struct wire_list *list) {
        int r;

        r = status_of(list, 0, -EREMOTEIO);
        if (r >= 0)
                handle_finish(scache, 0);
        return r;
}

/* Keep the properties: the answer's bytes make room for what comes next. */
static int keep_properties(struct scache *scache, const struct wire_list *list) {
        int r;

        for (size_t i = 1; i < list->n_attributes; i++) {
                struct slice property = wire_list_value(list, i);

                r = wire_buffer_reserve(&scache->properties, property.size + 1);
                if (r < 0)
                        return r;
                memcpy(wire_buffer_tail(&scache->properties), property.data, property.size + 1);
                wire_buffer_produced(&scache->properties, property.size + 1);
                scache->property_sizes[i - 1] = property.size;
        }

        scache->n_properties = list->n_attributes - 1;
        return 0;
}

static void forget_properties(struct scache *scache) {
        wire_buffer_clear(&scache->properties);
        scache->n_properties = 0;
}

/* Take the descriptor that came with the answer. */
static int take_descriptor(struct scache *scache) {
        switch (scache->passing.passed) {
        case WIRE_PASSED_ONE:
                scache->found_fd = steal_fd(&scache->passing.fd);
                scache->passing.passed = WIRE_PASSED_NONE;
                return 0;
        case WIRE_PASSED_LOST:
                return -EMFILE;
        default:
                return -EPROTO;
        }
}

static int on_found(struct scache *scache, const struct wire_list *list) {
        size_t n_properties = scache->request.kind == REQUEST_FIND_DEST ? 2 : 1;
        int r;

        r = status_of(list, n_properties, -ENOENT);
        if (r < 0)
                return r;
        forget_properties(scache);
        r = keep_properties(scache, list);
        if (r < 0)
                return r;

        if (scache->is_inline) {
                r = take_descriptor(scache);
                if (r >= 0)
                        handle_finish(scache, 0);
                return r;
        }

        scache->step = STEP_DESCRIPTOR;
        return request_put_dummy(scache);
}

static int on_descriptor(struct scache *scache) {
        int r;

        r = take_descriptor(scache);
        if (r < 0)
                return r;

        /* The service closes its copy when it reads this; Postfix's own waits for it. */
        scache->step = STEP_THANKS;
        return request_put_dummy(scache);
}

static int on_list(struct scache *scache, const struct wire_list *list) {
        switch (scache->step) {
        case STEP_GREETING:
                return on_greeting(scache, list);
        case STEP_BOUND:
                return on_bound(scache, list);
        case STEP_INVITATION:
                return on_invitation(scache, list);
        case STEP_STATUS:
                return on_status(scache, list);
        case STEP_FOUND:
                return on_found(scache, list);
        default:
                return -EPROTO;
        }
}

/* Process the input. Returns 1 if it was a whole answer, 0 if not, or negative errno. */
static int on_input(struct scache *scache) {
        bool may_pass = scache->step == STEP_DESCRIPTOR || (scache->step == STEP_FOUND && scache->is_inline);
        const char *input = wire_buffer_head(&scache->input);
        size_t fill = wire_buffer_fill(&scache->input), n = 1;
        struct wire_list list;
        int r;

        if (scache->passing.passed != WIRE_PASSED_NONE && !may_pass)
                return -EPROTO;
        if (scache->step != STEP_DESCRIPTOR) {
                n = wire_parser_feed(&scache->parser, input, fill);
                if (n == 0)
                        return 0;
        }

        /* The service sends nothing without a request: further bytes would be taken for the next answer. */
        if (fill > n)
                return -EPROTO;

        wire_buffer_consumed(&scache->input, n);
        if (scache->step == STEP_DESCRIPTOR)
                r = on_descriptor(scache);
        else {
                list = wire_parser_list(&scache->parser, input);
                r = on_list(scache, &list);
                wire_parser_reset(&scache->parser);
        }
        return r < 0 ? r : 1;
}

static void keep_passing(struct scache *scache, const struct wire_passing *passing) {
        if (passing->passed == WIRE_PASSED_NONE)
                return;
        if (scache->passing.passed == WIRE_PASSED_NONE) {
                scache->passing = *passing;
                return;
        }

        closep(&scache->passing.fd);
        closep(&passing->fd);
        scache->passing = (struct wire_passing){ WIRE_PASSED_MANY, -1 };
}

static int send_output(struct scache *scache) {
        while (wire_buffer_fill(&scache->output) > 0) {
                ssize_t n;

                n = wire_send(scache->socket, wire_buffer_head(&scache->output),
                        wire_buffer_fill(&scache->output), scache->output_has_fd ? scache->request.fd : -1);
                if (n < 0)
                        return (int) n;
                scache->output_has_fd = false;
                wire_buffer_consumed(&scache->output, (size_t) n);
        }

        if (scache->step == STEP_THANKS) {
                handle_finish(scache, 0);
                return 1;
        }
        return 0;
}

static int receive_input(struct scache *scache) {
        struct wire_passing passing;
        ssize_t n;
        int r;

        r = wire_buffer_reserve(&scache->input, RECEIVE_SIZE);
        if (r < 0)
                return r;
        n = wire_receive(scache->socket, wire_buffer_tail(&scache->input), wire_buffer_room(&scache->input),
                &passing);
        if (n < 0)
                return (int) n;
        if (n == 0)
                return -ECONNRESET;

        wire_buffer_produced(&scache->input, (size_t) n);
        keep_passing(scache, &passing);
        return 0;
}

/* Take one step. Returns 1 if the next step may be possible now, 0 if it needs an event first. */
static int advance_once(struct scache *scache) {
        int r;

        if (scache->step == STEP_CONNECT)
                return on_connect(scache);
        if (wire_buffer_fill(&scache->output) > 0)
                return send_output(scache);

        r = receive_input(scache);
        return r < 0 ? r : on_input(scache);
}

void handle_advance(struct scache *scache) {
        int r;

        do {
                if (scache->step == STEP_NONE)
                        break;

                r = advance_once(scache);
                if (r == -EAGAIN)
                        r = 0;
                else if (r == -ECONNRESET || r == -EPIPE)
                        on_cut(scache);
                else if (r < 0)
                        handle_finish(scache, r);
        } while (r != 0);

        if (scache->step != STEP_NONE && clock_now(CLOCK_MONOTONIC) >= scache->deadline_us)
                handle_finish(scache, -ETIMEDOUT);

        r = handle_watch(scache);
        if (r < 0 && scache->step != STEP_NONE)
                handle_finish(scache, r);
}

int handle_begin(struct scache *scache) {
        uint64_t now_us = clock_now(CLOCK_MONOTONIC);
        int r;

        closep(&scache->found_fd);
        scache->found_fd = -1;
        forget_properties(scache);

        scache->result = -EINPROGRESS;
        scache->n_cuts = 0;
        scache->deadline_us = usec_add(now_us, scache->timeout_us);
        scache->retry_at_us = 0;
        scache->retry_after_us = 0;
        scache->grace_until_us = scache->was_lost ? usec_add(now_us, GRACE_US) : 0;
        scache->was_lost = false;

        if (scache->socket < 0)
                scache->step = STEP_CONNECT;
        else {
                r = begin_exchange(scache);
                if (r < 0)
                        handle_finish(scache, r);
        }

        handle_advance(scache);
        return scache->step == STEP_NONE;
}
