# SPDX-License-Identifier: LGPL-2.1-or-later
# Packages: a tarball, Debian packages, RPMs. Included by the Makefile.

# Packages are made from the last commit and stamped with its time, so that two builds of one commit are the same.
DIST := scached-$(VERSION)
commit_time = $(shell git log -1 --format=%ct)
# The builds inside must not inherit the variables of this make.
clean_make = env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u MAKEOVERRIDES SOURCE_DATE_EPOCH=$(commit_time)

.PHONY: dist
dist: $(if $(filter deps,$(MAKECMDGOALS)),| deps)
	@mkdir -p $(B)/dist
	git -c tar.umask=0022 archive --prefix=$(DIST)/ HEAD | gzip -9n >$(B)/dist/$(DIST).tar.gz
	touch --date=@$(commit_time) $(B)/dist/$(DIST).tar.gz

.PHONY: deb
deb: dist
	rm -rf $(B)/deb
	mkdir -p $(B)/deb
	cp $(B)/dist/$(DIST).tar.gz $(B)/deb/scached_$(VERSION).orig.tar.gz
	tar -C $(B)/deb -xf $(B)/dist/$(DIST).tar.gz
	cp -a $(B)/deb/$(DIST)/packaging/debian $(B)/deb/$(DIST)/debian
	cd $(B)/deb/$(DIST) && $(clean_make) dpkg-buildpackage --no-sign
	@echo && ls $(B)/deb/*.deb

# No source package, because it would contain paths of this machine; `rpmbuild -ta` makes one from the tarball.
# RPMBUILD_FLAGS is for further options, such as RPMBUILD_FLAGS="--define 'dist .el9'".
RPMBUILD_FLAGS ?=
.PHONY: rpm
rpm: dist
	rm -rf $(B)/rpm
	mkdir -p $(B)/rpm
	tar -C $(B)/rpm --strip-components=2 -xf $(B)/dist/$(DIST).tar.gz $(DIST)/packaging/scached.spec
	$(clean_make) rpmbuild -bb --nodeps --define '_topdir $(abspath $(B))/rpm' --define '_sourcedir $(abspath $(B))/dist' \
		--define 'version_of_scached $(VERSION)' --define '_buildhost localhost' --define 'clamp_mtime_to_source_date_epoch 1' \
		--define 'use_source_date_epoch_as_buildtime 1' $(RPMBUILD_FLAGS) $(B)/rpm/scached.spec
	@echo && ls $(B)/rpm/RPMS/*/*.rpm
