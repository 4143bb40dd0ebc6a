/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "epochs/mounts.h"

#include <stdint.h>
#include <string.h>

/* So many mounts may be crossed on the way to one file. */
#define CROSSED_MAX 64

/* A line of mountinfo, as far as it matters here. Blanks and the like in paths are written as \ and three octal digits. */
struct mount {
        struct slice id, parent, device, root, point;
};

static bool next_field(struct slice *line, struct slice *ret) {
        const char *end = line->size > 0 ? memchr(line->data, ' ', line->size) : NULL;

        if (!end)
                return false;

        *ret = (struct slice){ line->data, (size_t) (end - line->data) };
        line->data += ret->size + 1;
        line->size -= ret->size + 1;
        return true;
}

/* Take the next line off a text; false at its end, or if it is no line of mountinfo. */
static bool next_mount(struct slice *text, struct mount *ret) {
        const char *end = text->size > 0 ? memchr(text->data, '\n', text->size) : NULL;
        struct slice line;

        if (!end)
                return false;

        line = (struct slice){ text->data, (size_t) (end - text->data) };
        text->data += line.size + 1;
        text->size -= line.size + 1;
        return next_field(&line, &ret->id) && next_field(&line, &ret->parent) &&
                next_field(&line, &ret->device) && next_field(&line, &ret->root) &&
                next_field(&line, &ret->point);
}

/* Take a byte off a path of mountinfo. */
static char next_byte(struct slice *path) {
        unsigned value = 0;
        size_t n = 1;

        if (*path->data == '\\' && path->size >= 4)
                for (; n < 4; n++)
                        value = value * 8 + ((unsigned) path->data[n] - '0');
        else
                value = (unsigned char) *path->data;
        path->data += n;
        path->size -= n;
        return (char) (unsigned char) value;
}

/* Return the part of PATH that is below a mount point, or NULL. */
static const char *below(const char *path, struct slice point) {
        if (slice_equal(point, SLICE("/")))
                return path;

        while (point.size > 0)
                if (next_byte(&point) != *path++)
                        return NULL;
        return *path == '/' || *path == '\0' ? path : NULL;
}

/* Find the mount that is on PARENT on the way to PATH; of several, the kernel comes to the one with the shortest path first. With
 * no PARENT: the mount at "/" whose own one is not in the text. */
static bool find_on(struct slice text, const struct mount *parent, const char *path, struct mount *ret) {
        struct mount mount;
        bool is_found = false;

        while (next_mount(&text, &mount)) {
                if (!slice_equal(mount.parent, parent->id) || slice_equal(mount.id, parent->id) ||
                        !below(path, mount.point))
                        continue;
                if (!is_found || mount.point.size < ret->point.size)
                        *ret = mount;
                is_found = true;
        }
        return is_found;
}

static bool has_mount(struct slice text, struct slice id) {
        struct mount mount;

        while (next_mount(&text, &mount))
                if (slice_equal(mount.id, id))
                        return true;
        return false;
}

static bool find_root(struct slice text, struct mount *ret) {
        struct slice rest = text;

        while (next_mount(&rest, ret))
                if (slice_equal(ret->point, SLICE("/")) &&
                        (slice_equal(ret->id, ret->parent) || !has_mount(text, ret->parent)))
                        return true;
        return false;
}

/* Find the mount in which PATH is, as the kernel does, from the root on. */
static bool find_mount(struct slice text, const char *path, struct mount *ret) {
        struct mount next;

        if (!find_root(text, ret))
                return false;

        for (unsigned i = 0; i < CROSSED_MAX; i++) {
                if (!find_on(text, ret, path, &next))
                        return true;
                *ret = next;
        }
        return false;
}

/* The next byte of the path inside a file system: first of the mount's root, then of what is below the mount point. */
static char next_inside(struct slice *root, const char **rest) {
        if (root->size > 0)
                return next_byte(root);
        return **rest ? *(*rest)++ : '\0';
}

bool mounts_agree(struct slice ours, struct slice theirs, const char *path) {
        struct mount a, b;
        const char *x, *y;
        char byte;

        if (!find_mount(ours, path, &a) || !find_mount(theirs, path, &b) || !slice_equal(a.device, b.device))
                return false;

        x = below(path, a.point);
        y = below(path, b.point);
        /* That of a whole file system is "/", and what follows begins with a slash, too. */
        a.root.size -= slice_equal(a.root, SLICE("/"));
        b.root.size -= slice_equal(b.root, SLICE("/"));
        do {
                byte = next_inside(&a.root, &x);
                if (byte != next_inside(&b.root, &y))
                        return false;
        } while (byte);
        return true;
}
