/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* scachectl: writes JSON piece by piece */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/slice.h"

struct json {
        FILE *out;
        bool is_first; /* in the open object or array */
};

#define JSON_INIT(stream) ((struct json){ (stream), true })

/* Open or close an object or an array: '{', '}', '[', ']'. */
void json_open(struct json *json, char bracket);
void json_close(struct json *json, char bracket);

/* Put the name of the next value in an object. */
void json_name(struct json *json, struct slice name);

/* Put a text or a number. If a text is not UTF-8, each byte from 0x80 on becomes \u00XX: labels can be any bytes. */
void json_text(struct json *json, struct slice text);
void json_number(struct json *json, uint64_t number);

/* End a line, and with it the document. */
void json_line(struct json *json);
