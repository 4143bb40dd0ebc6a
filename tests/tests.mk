# SPDX-License-Identifier: LGPL-2.1-or-later
# Everything that only tests need: unit tests, examples, fuzzers, benchmarks. Included by the Makefile.

UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))
EXAMPLES := $(patsubst tests/examples/%.c,$(B)/tests/examples/%,$(wildcard tests/examples/*.c))
FUZZERS := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# Every room as an archive, without the main programs: a test that brings its own piece of one gets that piece.
ROOMS := $(filter-out %/main.o,$(DAEMON_OBJECTS) $(COMMAND_OBJECTS)) $(WIRE_OBJECTS) $(LIBRARY_OBJECTS)

$(B)/rooms.a: $(ROOMS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/tests/%: tests/unit/%.c $(B)/rooms.a
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c %.a,$^) \
		$(SYSTEMD_LIBS) $(CMOCKA_LIBS)

# The test that lets allocations fail stands between the rooms and malloc(3).
$(B)/tests/test_exhaustion: private LDFLAGS += -Wl,--wrap=malloc,--wrap=calloc,--wrap=reallocarray

# What tests load into the daemon to make its calls fail. Under a sanitizer the allocator is not ours to interpose.
$(B)/tests/libfaults.so: tests/faults/faults.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -fvisibility=hidden -fsanitize% -fno-sanitize%,$(compile_flags)) -Wno-missing-prototypes \
		$(if $(SANITIZE),,-DFAULTS_IN_ALLOCATIONS) $(CPPFLAGS) $(CFLAGS) -shared -o $@ $< -ldl

# The cache as a program, which tests/model compares with its model.
$(B)/tests/model-driver: tests/model/driver.c $(CACHE_OBJECTS) $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c %.o,$^)

# Examples are programs of somebody else's: they see the public header and the library, nothing more.
$(B)/tests/examples/%: tests/examples/%.c src/libscache/scache.h $(B)/libscache.so $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) -std=c11 $(WARNINGS) $(CPPFLAGS) $(CFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE)) -Isrc/libscache \
		$(LDFLAGS) -pthread -o $@ $< -L$(B) -Wl,-rpath,'$$ORIGIN/../..' -lscache

# Fuzzers: each tests/fuzz/fuzz_NAME.c with libFuzzer, its corpus in tests/fuzz/corpus/NAME. `make fuzz FUZZ_SECONDS=1800`.
FUZZ_SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_CFLAGS ?= -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all
FUZZ_ROOMS := $(patsubst $(B)/obj/%,$(B)/fuzz/obj/%,$(ROOMS))

$(B)/fuzz/rooms.a: $(FUZZ_ROOMS)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(B)/fuzz/obj/%.o: src/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(FUZZ_CC) $(compile_flags) $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link,address,undefined -MMD -MP -c -o $@ $<

$(B)/fuzz/fuzz_%: tests/fuzz/fuzz_%.c $(B)/fuzz/rooms.a
	$(call say,LINK)
	$(Q)$(FUZZ_CC) $(compile_flags) $(CPPFLAGS) $(FUZZ_CFLAGS) -fsanitize=fuzzer,address,undefined -MMD -MP -o $@ \
		$(filter %.c %.a,$^) $(SYSTEMD_LIBS)

.PHONY: fuzz
fuzz: $(addprefix $(B)/fuzz/fuzz_,$(FUZZERS))
	$(Q)set -e; for name in $(FUZZERS); do \
		mkdir -p $(B)/fuzz/corpus/$$name; \
		$(B)/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 -print_final_stats=1 -close_fd_mask=3 \
			-artifact_prefix=$(B)/fuzz/$$name- $(B)/fuzz/corpus/$$name tests/fuzz/corpus/$$name; \
	done

# The short form, for `make check`: what the fuzzers have found so far still goes well, with any compiler.
$(B)/replay/fuzz_%: tests/fuzz/fuzz_%.c tests/fuzz/replay.c $(B)/rooms.a
	$(call say,LINK)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c %.a,$^) \
		$(SYSTEMD_LIBS)

# The benchmarks: `make bench` compares, `make bench-programs` only builds. BENCH_FLAGS goes to tests/bench/run.
BENCH_PROGRAMS := $(patsubst tests/bench/%.c,$(B)/tests/%,$(wildcard tests/bench/bench_*.c)) \
                  $(B)/tests/bench_smallest_bare
BENCH_FLAGS ?=

$(B)/tests/bench_%: tests/bench/bench_%.c $(CACHE_OBJECTS) $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c,$^) \
		$(if $(findstring bench_cache,$@),$(CACHE_OBJECTS)) $(if $(findstring smallest,$@),$(SYSTEMD_LIBS))

$(B)/tests/bench_smallest_bare: tests/bench/bench_smallest.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) -DWITHOUT_LIBSYSTEMD $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $<

.PHONY: bench-programs bench
bench-programs: $(BENCH_PROGRAMS)
bench: all bench-programs
	$(PYTHON) tests/bench/run --build $(B) $(BENCH_FLAGS)


.PHONY: test-programs
test-programs: $(UNIT_TESTS) $(EXAMPLES) $(addprefix $(B)/tests/,libfaults.so model-driver) $(addprefix $(B)/replay/fuzz_,$(FUZZERS))

-include $(addsuffix .d,$(UNIT_TESTS) $(B)/tests/model-driver $(addprefix $(B)/replay/fuzz_,$(FUZZERS)) $(BENCH_PROGRAMS)) $(FUZZ_ROOMS:.o=.d)

# The suites in root file systems of other releases, as root. `make check-releases RELEASES=forky SUITE=oracle`.
RELEASES ?= bullseye bookworm trixie forky
SUITE ?=
.PHONY: check-releases
check-releases: $(if $(filter deps,$(MAKECMDGOALS)),| deps)
	@$(PYTHON) tests/releases/run $(B) $(RELEASES) $(if $(SUITE),'--suite=$(SUITE)')

# What README says, typed in bare root file systems, where there is nothing but systemd. With Postfix before 3.6, only scachectl
# knows what to do.
.PHONY: check-newcomer
check-newcomer: $(if $(filter deps,$(MAKECMDGOALS)),| deps)
	@$(PYTHON) tests/releases/newcomer $(B) $(filter-out bullseye,$(RELEASES))

# What the kernel has a say in, under those of other releases, in qemu.
.PHONY: check-kernels
check-kernels: $(if $(filter deps,$(MAKECMDGOALS)),| deps)
	@$(PYTHON) tests/releases/kernels $(B) $(RELEASES)
