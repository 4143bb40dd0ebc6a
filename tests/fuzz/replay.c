/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Feed files, or all files of folders, to a target: replays a corpus without libFuzzer. */

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "fuzz.h"

static int replay_file(const char *path) {
        _cleanup_(freep) char *data = NULL;
        struct stat st;
        FILE *file;
        size_t n;

        file = fopen(path, "re");
        if (!file || fstat(fileno(file), &st) < 0) {
                fprintf(stderr, "%s: %s\n", path, strerror(errno));
                if (file)
                        fclose(file);
                return -1;
        }

        /* Just as large as the input, so that a sanitizer sees a read past its end. */
        data = malloc((size_t) st.st_size + (st.st_size == 0));
        n = data ? fread(data, 1, (size_t) st.st_size, file) : 0;
        fclose(file);
        if (!data || n != (size_t) st.st_size) {
                fprintf(stderr, "%s: could not be read\n", path);
                return -1;
        }

        (void) LLVMFuzzerTestOneInput((const uint8_t *) data, n);
        return 1;
}

/* Returns how many inputs there were, or -1. */
static int replay(const char *path) {
        struct dirent *entry;
        struct stat st;
        int n = 0;
        DIR *dir;

        if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
                return replay_file(path);

        dir = opendir(path);
        if (!dir)
                return -1;
        while (n >= 0 && (entry = readdir(dir))) {
                char name[PATH_MAX];

                if (entry->d_name[0] == '.')
                        continue;
                if (snprintf(name, sizeof(name), "%s/%s", path, entry->d_name) < (int) sizeof(name))
                        n = replay_file(name) < 0 ? -1 : n + 1;
        }
        closedir(dir);
        return n;
}

int main(int argc, char *argv[]) {
        int n = 0;

        for (int i = 1; i < argc; i++) {
                int r = replay(argv[i]);

                if (r < 0)
                        return EXIT_FAILURE;
                n += r;
        }

        printf("%d inputs\n", n);
        return n > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
