# SPDX-License-Identifier: LGPL-2.1-or-later
# scached: make, make check, make demo, make install. `make help` lists everything.

VERSION := 0.1.0

# The folder for everything that is built. Use another one for another kind of build: make B=build/asan SANITIZE=address,undefined
B ?= build
SANITIZE ?=

# The GNU directory variables, and systemd's.
prefix ?= /usr/local
exec_prefix ?= $(prefix)
bindir ?= $(exec_prefix)/bin
sbindir ?= $(exec_prefix)/sbin
libdir ?= $(exec_prefix)/lib
libexecdir ?= $(exec_prefix)/libexec
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
bashcompletiondir ?= $(datarootdir)/bash-completion/completions
zshcompletiondir ?= $(datarootdir)/zsh/site-functions
DESTDIR ?=

CC ?= cc
INSTALL ?= install
OBJCOPY ?= objcopy
PKG_CONFIG ?= pkg-config
# The distribution's own Python, because `make deps` installs packages for that one.
PYTHON ?= $(if $(wildcard /usr/bin/python3),/usr/bin/python3,python3)
CFLAGS ?= -O2 -g
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V))$(findstring s,$(firstword -$(MAKEFLAGS))),,@printf '  %-7s %s\n' '$(1)' '$(patsubst $(B)/%,%,$@)')

# What an initializer with names leaves out is zero, and meant so; gcc before 11 warns of it now and then.
WARNINGS := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wconversion -Wsign-conversion \
            -Wformat=2 -Wundef -Wvla -Wno-missing-field-initializers
# Looked up once, and only after `make deps`.
SYSTEMD_CFLAGS = $(eval SYSTEMD_CFLAGS := $$(shell $$(PKG_CONFIG) --cflags libsystemd))$(SYSTEMD_CFLAGS)
SYSTEMD_LIBS = $(eval SYSTEMD_LIBS := $$(shell $$(PKG_CONFIG) --libs libsystemd))$(SYSTEMD_LIBS)
CMOCKA_LIBS = $(eval CMOCKA_LIBS := $$(shell $$(PKG_CONFIG) --libs cmocka))$(CMOCKA_LIBS)

compile_flags = -std=gnu17 -D_GNU_SOURCE -DSCACHED_VERSION='"$(VERSION)"' -Isrc \
                -DSETTINGS_CONFIG_DIRECTORY='"$(sysconfdir)/scached"' \
                -fno-strict-aliasing -fvisibility=hidden -fPIC -fno-plt $(WARNINGS) $(SYSTEMD_CFLAGS) \
                $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer -fno-sanitize-recover=all)
link_flags = -pthread -Wl,-z,relro,-z,now $(if $(SANITIZE),-fsanitize=$(SANITIZE))

# A room is a folder; its objects are whatever C files are in it.
objects = $(patsubst src/%.c,$(B)/obj/%.o,$(wildcard src/$(1)/*.c))
# The daemon's rooms, the top floor first (src/README.md). The cache is one of them and used alone, too.
CACHE_OBJECTS := $(call objects,cache)
DAEMON_OBJECTS := $(foreach room,scached agents epochs handover settings custody daemon,$(call objects,$(room))) $(CACHE_OBJECTS)
WIRE_OBJECTS := $(call objects,wire)
LIBRARY_OBJECTS := $(call objects,libscache)
COMMAND_OBJECTS := $(call objects,scachectl)
OBJECTS := $(DAEMON_OBJECTS) $(WIRE_OBJECTS) $(LIBRARY_OBJECTS) $(COMMAND_OBJECTS)

.PHONY: all
all: $(addprefix $(B)/,scached scachectl libscache.so.0 libscache.so libscache.a)

$(B)/scached: $(DAEMON_OBJECTS) $(WIRE_OBJECTS)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(link_flags) $(LDFLAGS) -o $@ $^ $(SYSTEMD_LIBS)

$(B)/scachectl: $(COMMAND_OBJECTS) $(LIBRARY_OBJECTS) $(WIRE_OBJECTS)
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(link_flags) $(LDFLAGS) -o $@ $^

# Only the names in the version script are visible outside of the library, and of the static one, too.
$(B)/libscache.so.0: $(LIBRARY_OBJECTS) $(WIRE_OBJECTS) src/libscache/libscache.sym
	$(call say,LINK)
	$(Q)$(CC) $(CFLAGS) $(link_flags) $(LDFLAGS) -shared -Wl,-soname,libscache.so.0 \
		-Wl,--version-script=src/libscache/libscache.sym -o $@ $(filter %.o,$^)

$(B)/libscache.so: $(B)/libscache.so.0
	$(Q)ln -sf libscache.so.0 $@

$(B)/libscache.a: $(LIBRARY_OBJECTS) $(WIRE_OBJECTS)
	$(call say,AR)
	$(Q)$(LD) -r -o $(B)/obj/libscache.o $^
	$(Q)$(OBJCOPY) --localize-hidden $(B)/obj/libscache.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(B)/obj/libscache.o

# When the compiler or its flags change, all objects are built again.
flags = $(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) $(link_flags) $(LDFLAGS)
$(B)/flags: FORCE $(if $(filter deps,$(MAKECMDGOALS)),| deps)
	@mkdir -p $(@D)
	@printf '%s\n' '$(subst ','\'',$(flags))' | cmp -s - $@ || printf '%s\n' '$(subst ','\'',$(flags))' >$@
.PHONY: FORCE
FORCE:

$(B)/obj/%.o: src/%.c $(B)/flags
	$(call say,CC)
	@mkdir -p $(@D)
	$(Q)$(CC) $(compile_flags) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(OBJECTS:.o=.d)
include tests/tests.mk packaging/packages.mk

# The other goals on the command line decide which packages are needed; without any, all are.
deps_of_all := build
deps_of_install := build
deps_of_demo := build demo
deps_of_check-quick := build check
deps_of_deb := build deb
deps_of_rpm := build rpm
deps_of_check-releases := releases
deps_of_check-kernels := releases
deps_of_check-newcomer := releases
deps_of = $(or $(deps_of_$(1)),build demo check package)
.PHONY: deps
deps:
	@READERS=$(B)/readers sh packaging/deps $(sort $(foreach goal,$(filter-out deps,$(MAKECMDGOALS)),$(call deps_of,$(goal))))

.PHONY: demo
demo: all
	@$(PYTHON) tests/demo $(B)

# All tests, those that need neither a booted machine nor sanitizers, or only T: see tests/README.md.
T ?=
.PHONY: check check-quick
check: all
	@$(PYTHON) tests/run $(B) '$(subst ','\'',$(T))'
check-quick: all
	@$(PYTHON) tests/run --quick $(B)

MAN_PAGES := $(wildcard man/*.[1-8])
UNITS := $(wildcard units/*.socket units/*.path units/*.timer)
# One service for all agents, and a template for further instances of Postfix.
SERVICES := scached.service scached@.service
HELPERS := scached-new-socket@.service scached-reopen@.service scached-metrics.service
install_unit = sed -e 's|@bindir@|$(bindir)|g' -e 's|@sbindir@|$(sbindir)|g' -e 's|@libexecdir@|$(libexecdir)|g' units/$(1).in \
		>$(DESTDIR)$(systemunitdir)/$(2) && chmod 644 $(DESTDIR)$(systemunitdir)/$(2)

.PHONY: install
install: all
	$(INSTALL) -d $(DESTDIR)$(systemunitdir) $(DESTDIR)$(sysconfdir)/scached $(DESTDIR)$(pkgconfigdir)
	$(INSTALL) -D -m 755 $(B)/scached $(DESTDIR)$(sbindir)/scached
	$(INSTALL) -D -m 755 $(B)/scachectl $(DESTDIR)$(bindir)/scachectl
	$(INSTALL) -D -m 755 units/scached-socket $(DESTDIR)$(libexecdir)/scached-socket
	$(INSTALL) -m 644 $(UNITS) $(DESTDIR)$(systemunitdir)
	for unit in $(SERVICES); do $(call install_unit,scached.service,$$unit) || exit; done
	for unit in $(HELPERS); do $(call install_unit,$$unit,$$unit) || exit; done
	$(INSTALL) -D -m 644 units/scached.sysusers $(DESTDIR)$(sysusersdir)/scached.conf
	$(INSTALL) -D -m 644 units/scached.catalog $(DESTDIR)$(catalogdir)/scached.catalog
	$(INSTALL) -D -m 755 $(B)/libscache.so.0 $(DESTDIR)$(libdir)/libscache.so.0
	ln -sf libscache.so.0 $(DESTDIR)$(libdir)/libscache.so
	$(INSTALL) -m 644 $(B)/libscache.a $(DESTDIR)$(libdir)/libscache.a
	$(INSTALL) -D -m 644 src/libscache/scache.h $(DESTDIR)$(includedir)/scache.h
	sed -e 's|@prefix@|$(prefix)|' -e 's|@exec_prefix@|$(exec_prefix)|' -e 's|@libdir@|$(libdir)|' \
		-e 's|@includedir@|$(includedir)|' -e 's|@VERSION@|$(VERSION)|' src/libscache/libscache.pc.in \
		>$(DESTDIR)$(pkgconfigdir)/libscache.pc
	chmod 644 $(DESTDIR)$(pkgconfigdir)/libscache.pc
	$(INSTALL) -D -m 644 src/scachectl/completion/scachectl.bash $(DESTDIR)$(bashcompletiondir)/scachectl
	$(INSTALL) -D -m 644 src/scachectl/completion/_scachectl $(DESTDIR)$(zshcompletiondir)/_scachectl
	for page in $(MAN_PAGES); do \
		$(INSTALL) -D -m 644 $$page $(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/} || exit; done
	$(if $(DESTDIR),,sh packaging/refresh $(sysusersdir)/scached.conf)

.PHONY: uninstall
uninstall:
	rm -f $(DESTDIR)$(sbindir)/scached $(DESTDIR)$(bindir)/scachectl
	rm -f $(addprefix $(DESTDIR)$(systemunitdir)/,$(SERVICES) $(HELPERS) $(notdir $(UNITS)))
	rm -f $(DESTDIR)$(libexecdir)/scached-socket
	rm -f $(DESTDIR)$(sysusersdir)/scached.conf $(DESTDIR)$(catalogdir)/scached.catalog
	rm -f $(addprefix $(DESTDIR)$(libdir)/,libscache.so.0 libscache.so libscache.a)
	rm -f $(DESTDIR)$(includedir)/scache.h $(DESTDIR)$(pkgconfigdir)/libscache.pc
	rm -f $(DESTDIR)$(bashcompletiondir)/scachectl $(DESTDIR)$(zshcompletiondir)/_scachectl
	for page in $(MAN_PAGES); do rm -f $(DESTDIR)$(mandir)/man$${page##*.}/$${page##*/}; done
	-rmdir $(DESTDIR)$(sysconfdir)/scached
	$(if $(DESTDIR),,sh packaging/refresh)

.PHONY: clean
clean:
	rm -rf $(B)

.PHONY: help
help:
	@echo 'make              build everything into $(B)/'
	@echo 'make deps         install the packages that building, testing and packaging need (as root)'
	@echo 'make deps GOAL    install the packages that GOAL needs, and make GOAL'
	@echo 'make demo         show it at work, without installing it'
	@echo 'make check        run all tests (as root: also those that boot systemd)'
	@echo 'make check-quick  run those that need neither a booted systemd nor sanitizers'
	@echo 'make check T=TEST run one file or test: T=tests/agent/test_care.py::test_name'
	@echo 'make check-releases  run all tests in root file systems of RELEASES="bullseye bookworm trixie forky"'
	@echo 'make check-newcomer  type what README says on bare RELEASES'
	@echo 'make check-kernels   run those that depend on the kernel under the kernels of RELEASES, in qemu'
	@echo 'make fuzz         run each fuzzer for FUZZ_SECONDS=60'
	@echo 'make bench        compare its cost with the floor and with similar programs'
	@echo 'make install      install to DESTDIR, prefix=$(prefix); make uninstall removes it'
	@echo 'make deb, rpm     build packages from the last commit'
	@echo 'make clean        remove $(B)/'
	@echo
	@echo 'V=1 shows the commands, B=DIR builds into DIR, SANITIZE=address,undefined builds with sanitizers.'
