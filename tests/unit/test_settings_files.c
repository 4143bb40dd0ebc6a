/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settings: files, and what is none */
#include <fcntl.h>
#include <sys/stat.h>

#include "test_settings.h"

struct folder {
        char path[64];
        int fd;
};

static void folder_deinit(struct folder *folder) {
        (void) unlinkat(folder->fd, "main.cf", 0);
        (void) unlinkat(folder->fd, "scached.conf", 0);
        (void) unlinkat(folder->fd, "scached.conf", AT_REMOVEDIR);
        (void) close(folder->fd);
        (void) rmdir(folder->path);
}

static void folder_init(struct folder *folder) {
        (void) snprintf(folder->path, sizeof(folder->path), "/tmp/test_settings.XXXXXX");
        assert_non_null(mkdtemp(folder->path));
        folder->fd = open(folder->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert_true(folder->fd >= 0);
}

static void folder_write(const struct folder *folder, const char *name, const char *data, size_t size) {
        _cleanup_(closep) int fd = openat(folder->fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, size), size);
}

static int folder_load(const struct folder *folder, struct said *said, struct settings **ret) {
        struct settings_request request = { .config_directory = folder->path };

        return settings_load(&request, hear, said, ret);
}

static void test_files(void **state) {
        _cleanup_(settings_freep) struct settings *empty = NULL, *settings = NULL;
        _cleanup_(folder_deinit) struct folder folder = { .fd = -1 };
        struct said *said = new_said(state);
        char source[128];

        folder_init(&folder);
        assert_int_equal(folder_load(&folder, said, &empty), 0);
        assert_row(empty, "max_idle", "100s", "default");
        assert_row(empty, "config_directory", folder.path, "-c");

        folder_write(&folder, "main.cf", "max_idle = 5s\nipc_timeout = 6s\n", 31);
        folder_write(&folder, "scached.conf", "\nipc_timeout = 7s", 17);
        assert_int_equal(folder_load(&folder, said, &settings), 0);
        assert_string_equal(said->text, "");
        (void) snprintf(source, sizeof(source), "%s/main.cf:1", folder.path);
        assert_row(settings, "max_idle", "5s", source);
        (void) snprintf(source, sizeof(source), "%s/scached.conf:2", folder.path);
        assert_row(settings, "ipc_timeout", "7s", source);
}

static void test_no_folder(void **state) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        struct settings_request request = { .config_directory = "/nonexistent/scached" };
        struct said *said = new_said(state);

        assert_int_equal(settings_load(&request, hear, said, &settings), -ENOENT);
        assert_string_equal(said->text,
                "error: /nonexistent/scached: cannot read settings from this directory: No such file or "
                "directory");

        request.config_directory = "/dev/null";
        assert_int_equal(settings_load(&request, hear, said, &settings), -ENOTDIR);
        assert_null(settings);
}

/* As root every file can be read, so what cannot be is no file at all. */
static void test_unreadable(void **state) {
        static const struct {
                int r;
                const char *problem;
        } cases[] = {
                { -EISDIR, "Is a directory" },
                { -EBADFD, "neither a file nor a device" },
                { -ELOOP, "Too many levels of symbolic links" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(folder_deinit) struct folder folder = { .fd = -1 };
                struct settings *settings = NULL;
                struct said *said = new_said(state);
                char expected[512];

                folder_init(&folder);
                if (cases[i].r == -EISDIR)
                        assert_int_equal(mkdirat(folder.fd, "scached.conf", 0700), 0);
                else if (cases[i].r == -EBADFD)
                        assert_int_equal(mkfifoat(folder.fd, "scached.conf", 0600), 0);
                else
                        assert_int_equal(symlinkat("scached.conf", folder.fd, "scached.conf"), 0);

                assert_int_equal(folder_load(&folder, said, &settings), cases[i].r);
                assert_null(settings);
                (void) snprintf(expected, sizeof(expected),
                        "error: %s/scached.conf: cannot read this file: %s", folder.path, cases[i].problem);
                assert_string_equal(said->text, expected);

                /* what is wrong with the other one is said, too */
                folder_write(&folder, "main.cf", "max_idle = x\n", 13);
                said = new_said(state);
                assert_int_equal(folder_load(&folder, said, &settings), cases[i].r);
                assert_int_equal(said->n_errors, 2);
        }
}

static void test_masked(void **state) {
        _cleanup_(settings_freep) struct settings *settings = NULL;
        _cleanup_(folder_deinit) struct folder folder = { .fd = -1 };
        struct said *said = new_said(state);

        folder_init(&folder);
        assert_int_equal(symlinkat("/dev/null", folder.fd, "scached.conf"), 0);
        assert_int_equal(folder_load(&folder, said, &settings), 0);
        assert_string_equal(said->text, "");
}

static void test_file_size(void **state) {
        _cleanup_(freep) char *data = malloc(SETTINGS_FILE_MAX + 1);

        assert_non_null(data);
        memset(data, '\n', SETTINGS_FILE_MAX + 1);
        memcpy(data + SETTINGS_FILE_MAX - 12, "max_idle = 5", 12);

        for (unsigned i = 0; i < 2; i++) {
                _cleanup_(settings_freep) struct settings *settings = NULL;
                _cleanup_(folder_deinit) struct folder folder = { .fd = -1 };
                struct said *said = new_said(state);
                char expected[256];

                folder_init(&folder);
                folder_write(&folder, "scached.conf", data, SETTINGS_FILE_MAX + i);
                if (i == 0) {
                        assert_int_equal(folder_load(&folder, said, &settings), 0);
                        assert_int_equal(settings->max_idle_us, 5 * USEC_PER_SEC);
                        continue;
                }
                assert_int_equal(folder_load(&folder, said, &settings), -EINVAL);
                (void) snprintf(expected, sizeof(expected),
                        "error: %s/scached.conf: expected a file of at most 1048576 bytes", folder.path);
                assert_string_equal(said->text, expected);
        }
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_files),
                cmocka_unit_test(test_no_folder),
                cmocka_unit_test(test_unreadable),
                cmocka_unit_test(test_masked),
                cmocka_unit_test(test_file_size),
        };

        return cmocka_run_group_tests_name("settings files", tests, setup, teardown);
}
