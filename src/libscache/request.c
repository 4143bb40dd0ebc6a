/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>

#include "base/cleanup.h"
#include "libscache/handle.h"

/* A request as lists on the wire. */

int request_set(struct request *request, enum request_kind kind, unsigned ttl_s, int fd,
        const char *const texts[_TEXT_MAX]) {
        int r;

        request->kind = kind;
        request->ttl_s = ttl_s;
        request->fd = fd;

        wire_buffer_clear(&request->texts);
        for (size_t i = 0; i < _TEXT_MAX; i++) {
                size_t size;

                request->has_text[i] = texts[i] != NULL;
                if (!texts[i])
                        continue;

                size = strlen(texts[i]) + 1;
                r = wire_buffer_reserve(&request->texts, size);
                if (r < 0)
                        return r;
                request->text_at[i] = wire_buffer_fill(&request->texts);
                memcpy(wire_buffer_tail(&request->texts), texts[i], size);
                wire_buffer_produced(&request->texts, size);
        }

        return 0;
}

static struct slice text(const struct request *request, enum request_text which) {
        return request->has_text[which]
                ? slice_of(wire_buffer_head(&request->texts) + request->text_at[which])
                : SLICE("");
}

static int put_save(struct scache *scache, struct slice name) {
        int r;

        r = wire_put(&scache->output, SLICE("request"), name);
        return r < 0 ? r : wire_put_number(&scache->output, SLICE("ttl"), scache->request.ttl_s);
}

/* Put the epoch, if there is one, and the end of a request. */
static int put_end(struct scache *scache) {
        int r = 0;

        if (scache->epoch)
                r = wire_put(&scache->output, SLICE("epoch"), slice_of(scache->epoch));
        return r < 0 ? r : wire_put_end(&scache->output);
}

/* Put the farewell, if there is one and the service supports it, and the end of the request. */
static int put_farewell(struct scache *scache) {
        const struct request *request = &scache->request;
        int r = 0;

        if (request->has_text[TEXT_FAREWELL] && scache->can_farewell)
                r = wire_put(&scache->output, SLICE("farewell"), text(request, TEXT_FAREWELL));
        return r < 0 ? r : put_end(scache);
}

static int put_texts(struct scache *scache, const enum request_text texts[], size_t n_texts) {
        int r = 0;

        for (size_t i = 0; r >= 0 && i < n_texts; i++) {
                bool is_property = texts[i] == TEXT_PROPERTY || texts[i] == TEXT_DESTINATION_PROPERTY;

                r = wire_put(&scache->output, is_property ? SLICE("property") : SLICE("label"),
                        text(&scache->request, texts[i]));
        }
        return r;
}

int request_put_save_dest(struct scache *scache) {
        static const enum request_text texts[] = { TEXT_DESTINATION, TEXT_DESTINATION_PROPERTY,
                TEXT_ENDPOINT };
        int r;

        r = put_save(scache, SLICE("save_dest"));
        if (r >= 0)
                r = put_texts(scache, texts, ELEMENTSOF(texts));
        return r < 0 ? r : put_end(scache);
}

int request_put_save_endp(struct scache *scache, bool in_one_trip) {
        static const enum request_text texts[] = { TEXT_ENDPOINT, TEXT_PROPERTY };
        int r;

        r = put_save(scache, SLICE("save_endp"));
        if (r >= 0)
                r = put_texts(scache, texts, ELEMENTSOF(texts));
        scache->output_has_fd = in_one_trip;
        return r < 0 ? r : put_farewell(scache);
}

int request_put_save(struct scache *scache) {
        static const enum request_text texts[] = { TEXT_DESTINATION, TEXT_DESTINATION_PROPERTY,
                TEXT_ENDPOINT, TEXT_PROPERTY };
        int r;

        r = put_save(scache, SLICE("save"));
        if (r >= 0)
                r = put_texts(scache, texts, ELEMENTSOF(texts));
        scache->output_has_fd = true;
        return r < 0 ? r : put_farewell(scache);
}

int request_put_find(struct scache *scache, bool in_one_trip) {
        bool by_endpoint = scache->request.kind == REQUEST_FIND_ENDP;
        const enum request_text texts[] = { by_endpoint ? TEXT_ENDPOINT : TEXT_DESTINATION };
        int r;

        r = wire_put(
                &scache->output, SLICE("request"), by_endpoint ? SLICE("find_endp") : SLICE("find_dest"));
        if (r >= 0)
                r = put_texts(scache, texts, ELEMENTSOF(texts));
        if (r >= 0 && in_one_trip)
                r = wire_put(&scache->output, SLICE("handover"), SLICE("inline"));
        return r < 0 ? r : put_end(scache);
}

int request_put_dummy(struct scache *scache) {
        int r;

        r = wire_put(&scache->output, SLICE("dummy"), SLICE(""));
        return r < 0 ? r : wire_put_end(&scache->output);
}
