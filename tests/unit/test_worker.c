/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Processes that close what came from outside: they do their job, and leave ours alone, also where clone(2) refuses to lend them
 * our memory. */

#include "unit.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "custody/worker.h"

/* Flags with which clone(2) fails. */
static int refused_flags;

static int n_clones;

typedef int (*clone_fn)(int (*fn)(void *), void *stack, int flags, void *arg, ...);

/* As some C libraries do it, musl among them. */
int clone(int (*fn)(void *), void *stack, int flags, void *arg, ...) {
        static clone_fn real;
        void *parent_tid, *thread, *child_tid;
        va_list ap;

        if (!real)
                real = (clone_fn) dlsym(RTLD_NEXT, "clone");
        n_clones++;
        if (flags & refused_flags) {
                errno = EINVAL;
                return -1;
        }

        va_start(ap, arg);
        parent_tid = va_arg(ap, void *);
        thread = va_arg(ap, void *);
        child_tid = va_arg(ap, void *);
        va_end(ap);
        return real(fn, stack, flags, arg, parent_tid, thread, child_tid);
}

/* A job of a farewell, and of a descriptor that is closed twice: the second time fails in the worker. */
static void do_a_job(int flags) {
        static const char farewell[] = "QUIT\r\n";
        struct workplace *places = workplaces_new(2);
        struct job *job;
        char text[sizeof(farewell)] = "";
        int told[2], closed[2], status;
        pid_t pid;

        refused_flags = flags;
        assert_non_null(places);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, told), 0);
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, closed), 0);

        job = workplace_job(places, 1);
        job->n_tasks = 3;
        job->tasks[0] = (struct task){ .fd = told[0], .farewell_size = 6, .kind = TASK_PART };
        job->tasks[1] = (struct task){ .fd = closed[0], .kind = TASK_CLOSE };
        job->tasks[2] = (struct task){ .fd = closed[0], .kind = TASK_CLOSE };
        memcpy(job->farewells, farewell, 6);

        errno = ERANGE;
        pid = worker_start(places, 1);
        assert_true(pid > 0);
        errno = ERANGE;
        while (waitpid(pid, &status, WNOHANG) == 0)
                assert_int_equal(errno, ERANGE);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);

        assert_int_equal(job->n_done, 3);
        assert_true(job->tasks[0].is_said);
        assert_int_equal(recv(told[1], text, sizeof(text), 0), 6);
        assert_string_equal(text, farewell);
        assert_int_equal(recv(told[1], text, sizeof(text), 0), 0);
        assert_int_equal(recv(closed[1], text, sizeof(text), 0), 0);
        assert_int_equal(fcntl(told[0], F_GETFD), -1);
        assert_int_equal(fcntl(closed[0], F_GETFD), -1);
        closep(&told[1]);
        closep(&closed[1]);
        workplaces_free(places, 2);
}

static void test_a_worker_closes_in_our_table(_unused_ void **state) {
        do_a_job(0);
}

static void test_a_worker_needs_no_thread_pointer(_unused_ void **state) {
        do_a_job(CLONE_SETTLS);
}

static void test_a_worker_needs_not_our_memory(_unused_ void **state) {
        do_a_job(CLONE_VM);
}

/* Where no process can be started at all, nothing is closed, and the error says why. */
static void test_no_worker_at_all(_unused_ void **state) {
        struct workplace *places = workplaces_new(1);

        refused_flags = CLONE_FILES;
        n_clones = 0;
        workplace_job(places, 0)->n_tasks = 0;
        assert_int_equal(worker_start(places, 0), -EINVAL);
        assert_true(n_clones <= 2);
        workplaces_free(places, 1);
}

int main(void) {
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_worker_closes_in_our_table),
                cmocka_unit_test(test_a_worker_needs_no_thread_pointer),
                cmocka_unit_test(test_a_worker_needs_not_our_memory),
                cmocka_unit_test(test_no_worker_at_all),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
