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

/* Read the UTF-8 character at P (RFC 3629). Returns its number of bytes, 0 if it is invalid. */
static size_t read_character(const unsigned char *p, size_t size, unsigned long *ret) {
        static const unsigned long least[] = { 0, 0, 0x80, 0x800, 0x10000 };
        unsigned long character;
        size_t n;

        *ret = p[0];
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

        *ret = character;
        return character < least[n] || character > 0x10ffff || (character >= 0xd800 && character <= 0xdfff)
                ? 0
                : n;
}

static bool is_utf8(struct slice text) {
        const unsigned char *p = (const unsigned char *) text.data;
        unsigned long character;
        size_t n;

        for (size_t i = 0; i < text.size; i += n) {
                n = read_character(p + i, text.size - i, &character);
                if (n == 0)
                        return false;
        }
        return true;
}

/* A terminal obeys these characters, or shows what follows in another order: the controls of ISO 6429, the separators of lines
 * and paragraphs, and the controls of direction (Unicode Standard Annex 9). */
static bool is_control(unsigned long character) {
        return character < 0x20 || (character >= 0x7f && character <= 0x9f) || character == 0x61c ||
                character == 0x200e || character == 0x200f || (character >= 0x2028 && character <= 0x202e) ||
                (character >= 0x2066 && character <= 0x2069);
}

static void put_text(FILE *out, struct slice text) {
        const unsigned char *p = (const unsigned char *) text.data;
        bool utf8 = is_utf8(text);
        size_t n = 1;

        fputc('"', out);
        for (size_t i = 0; i < text.size; i += n) {
                unsigned long character = p[i];

                if (utf8)
                        n = read_character(p + i, text.size - i, &character);

                if (character == '"' || character == '\\')
                        fprintf(out, "\\%c", (char) character);
                else if (character == '\n')
                        fputs("\\n", out);
                else if (is_control(character) || (character >= 0x80 && !utf8))
                        fprintf(out, "\\u%04lx", character);
                else
                        (void) fwrite(p + i, 1, n, out);
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
