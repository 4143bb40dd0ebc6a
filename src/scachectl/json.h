/* scachectl: JSON, written as it comes */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/slice.h"

struct json {
        FILE *out;
        bool is_first; /* of what is open */
};

#define JSON_INIT(stream) ((struct json){ (stream), true })

/* Open or close an object or an array: '{', '}', '[', ']'. */
void json_open(struct json *json, char bracket);
void json_close(struct json *json, char bracket);

/* The name of what comes next in an object. */
void json_name(struct json *json, struct slice name);

/* Text. Labels are any bytes: where they are not UTF-8, each byte from 0x80 on becomes \u00XX. */
void json_text(struct json *json, struct slice text);
void json_number(struct json *json, uint64_t number);

/* The end of a line, and of a document. */
void json_line(struct json *json);
