#!/bin/sh
# SPDX-License-Identifier: LGPL-2.1-or-later
# debhelper 13.11.4: "dh_installsystemd --no-start", meant for units that only an administrator starts, makes each upgrade of
# the package stop them: the preinst script stops the unit if it runs, and no script starts it again. Without --no-start
# nothing is stopped. The manual says of the option that the unit is not started after upgrades, and nothing of a stop.
# --no-stop-on-upgrade, given as well, keeps the unit running.
#
# Needs apt-get, dpkg and perl, on Debian 12; installs nothing. Fails if debhelper behaves in another way.
set -eu

version=13.11.4
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

apt-get download -qq -o APT::Sandbox::User=root "debhelper=$version" "libdebhelper-perl=$version" libdpkg-perl=1.21.23
for package in *.deb; do
        dpkg -x "$package" root
done
export PERL5LIB="$scratch/root/usr/share/perl5" DH_AUTOSCRIPTDIR="$scratch/root/usr/share/debhelper/autoscripts"

# Print which scripts of a package with a socket unit stop or start it on an upgrade, with these options.
scripts_with() {
        rm -rf package
        mkdir -p package/debian
        cd package
        cat >debian/control <<-END
		Source: example
		Maintainer: Example <example@example.org>
		Build-Depends: debhelper-compat (= 13)

		Package: example
		Architecture: all
		Description: example
	END
        cat >debian/changelog <<-END
		example (1) unstable; urgency=low

		  * Example.

		 -- Example <example@example.org>  Thu, 01 Jan 2026 00:00:00 +0000
	END
        printf '[Socket]\nListenStream=/run/example.sock\n[Install]\nWantedBy=sockets.target\n' >debian/example.socket
        perl "$scratch/root/usr/bin/dh_installsystemd" "$@"
        for script in preinst postinst; do
                for verb in stop start restart; do
                        # On an upgrade, postinst restarts what it would start otherwise.
                        find debian -name "*$script*" -exec cat {} + |
                                grep -q "deb-systemd-invoke $verb 'example.socket'\|_dh_action=$verb" &&
                                printf '%s ' "$script:$verb"
                done
        done
        cd ..
}

expect() {
        wanted=$1
        shift
        seen=$(scripts_with "$@")
        echo "dh_installsystemd${*:+ }$*: ${seen:-nothing}"
        if [ "$seen" != "$wanted" ]; then
                echo "expected: ${wanted:-nothing}"
                failed=yes
        fi
}

failed=
echo "debhelper $version"
expect 'postinst:start postinst:restart '
expect 'preinst:stop ' --no-start
expect '' --no-start --no-stop-on-upgrade
[ -z "$failed" ]
