# scached: make, make check, make demo, make install. `make help` lists everything.

VERSION := 0.1.0

# Where things are built; another folder for another kind of build: make B=build/asan SANITIZE=address,undefined
B ?= build
SANITIZE ?=

# The GNU directory variables, and systemd's.
prefix ?= /usr/local
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
sbindir ?= $(exec_prefix)/sbin
libdir ?= $(exec_prefix)/lib
includedir ?= $(prefix)/include
datarootdir ?= $(prefix)/share
mandir ?= $(datarootdir)/man
docdir ?= $(datarootdir)/doc/scached
sysconfdir ?= /etc
pkgconfigdir ?= $(libdir)/pkgconfig
# systemd reads units and the like from /usr/lib, or from /usr/local/lib where that is the prefix.
systemunitdir ?= $(prefix)/lib/systemd/system
catalogdir ?= /usr/lib/systemd/catalog
sysusersdir ?= $(prefix)/lib/sysusers.d
DESTDIR ?=

CC ?= cc
INSTALL ?= install
PKG_CONFIG ?= pkg-config
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
CFLAGS ?= -O2 -g
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Wsign-conversion \
            -Wformat=2 -Wundef -Wvla
SYSTEMD_CFLAGS := $(shell $(PKG_CONFIG) --cflags libsystemd 2>/dev/null)
SYSTEMD_LIBS := $(shell $(PKG_CONFIG) --libs libsystemd 2>/dev/null)

compile_flags = -std=gnu17 -D_GNU_SOURCE -DSCACHED_VERSION='"$(VERSION)"' -Isrc \
                -DSETTINGS_CONFIG_DIRECTORY='"$(sysconfdir)/scached"' \
                -fno-strict-aliasing -fvisibility=hidden -fPIC $(WARNINGS) $(SYSTEMD_CFLAGS) \
                $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
link_flags = -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE))

# A room is a folder; its objects are whatever C files are in it.
objects = $(patsubst src/%.c,$(B)/obj/%.o,$(wildcard src/$(1)/*.c))
DAEMON_OBJECTS := $(call objects,scached)
CACHE_OBJECTS := $(call objects,cache)
WIRE_OBJECTS := $(call objects,wire)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(B)/tests/%,$(wildcard tests/unit/test_*.c))

.PHONY: all
all: $(B)/scached

$(B)/scached: $(DAEMON_OBJECTS) $(CACHE_OBJECTS) $(WIRE_OBJECTS)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(link_flags) $(LDFLAGS) -o $@ $^ $(SYSTEMD_LIBS)

# Objects are made anew when the compiler or its flags change.
$(B)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(subst ','\'',$(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS) $(compile_flags) $(link_flags))' | cmp -s - $@ || \
		echo '$(subst ','\'',$(CC) $(CFLAGS) $(CPPFLAGS) $(LDFLAGS) $(compile_flags) $(link_flags))' >$@
.PHONY: FORCE
FORCE:

$(B)/obj/%.o: src/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# Unit tests: one program a file, with every room but the main programs.
$(B)/tests/%: tests/unit/%.c $(filter-out %/main.o,$(DAEMON_OBJECTS)) $(CACHE_OBJECTS) $(WIRE_OBJECTS)
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS) -MMD -MP -o $@ $(filter %.c %.o,$^) \
		$(SYSTEMD_LIBS) $$($(PKG_CONFIG) --libs cmocka)

.PHONY: unit-tests
unit-tests: $(UNIT_TESTS)

-include $(patsubst %.o,%.d,$(DAEMON_OBJECTS) $(CACHE_OBJECTS) $(WIRE_OBJECTS)) $(addsuffix .d,$(UNIT_TESTS))

.PHONY: clean
clean:
	rm -rf $(B)
