/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scachectl/json.h"

#include <inttypes.h>

static void put_comma(struct json *json) {
        if (!json->is_first)
                fputc(',', json->out);
        json->is_first = false;
}

void json_open(struct json *json, char bracket) {
        put_comma(json);
        fputc(bracket, json->out);
        json->is_first = true;
}

void json_close(struct json *json, char bracket) {
        fputc(bracket, json->out);
        json->is_first = false;
}

/* How many bytes the UTF-8 character at P has, 0 if it is none (RFC 3629). */
static size_t utf8_length(const unsigned char *p, size_t size) {
        static const unsigned long least[] = { 0, 0, 0x80, 0x800, 0x10000 };
        unsigned long character;
        size_t n;

        if (p[0] < 0x80)
                return 1;
        n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
        if (p[0] < 0xc2 || p[0] > 0xf4 || size < n)
                return 0;

        character = p[0] & (0x7fu >> n);
        for (size_t i = 1; i < n; i++) {
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
                character = character << 6 | (p[i] & 0x3fu);
        }

        return character < least[n] || character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff)
                ? 0
                : n;
}

static bool is_utf8(struct slice text) {
        const unsigned char *p = (const unsigned char *) text.data;
        size_t n;

        for (size_t i = 0; i < text.size; i += n) {
                n = utf8_length(p + i, text.size - i);
                if (n == 0)
                        return false;
        }
        return true;
}

static void put_text(FILE *out, struct slice text) {
        bool utf8 = is_utf8(text);

        fputc('"', out);
        for (size_t i = 0; i < text.size; i++) {
                unsigned char c = (unsigned char) text.data[i];

                if (c == '"' || c == '\\')
                        fprintf(out, "\\%c", c);
                else if (c == '\n')
                        fputs("\\n", out);
                else if (c < 0x20 || c == 0x7f || (c >= 0x80 && !utf8))
                        fprintf(out, "\\u%04x", c);
                else
                        fputc(c, out);
        }
        fputc('"', out);
}

void json_name(struct json *json, struct slice name) {
        put_comma(json);
        put_text(json->out, name);
        fputc(':', json->out);
        json->is_first = true;
}

void json_text(struct json *json, struct slice text) {
        put_comma(json);
        put_text(json->out, text);
}

void json_number(struct json *json, uint64_t number) {
        put_comma(json);
        fprintf(json->out, "%" PRIu64, number);
}

void json_line(struct json *json) {
        fputc('\n', json->out);
        json->is_first = true;
}
