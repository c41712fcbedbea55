#!/usr/bin/env bash
# headwater on aarch64 without a board: Debian bookworm for arm64, as a Raspberry Pi runs it, under user-mode emulation.
#
#     make aarch64        or, as root, with the environment that has headwater in PATH:
#     tests/aarch64/run.sh [WORK]
#
# It needs root and Debian's debootstrap, qemu-user-static and binfmt-support, and 1.5 GB in WORK
# (/var/tmp/headwater-aarch64 if not given), where the root file system and the packages stay for the next time; the
# first time takes some ten minutes. It ends at the first of these that does not hold:
#   1. everything that headwater needs comes as a ready-made aarch64 wheel, a camera's OpenCV too;
#   2. headwater itself builds with the distribution's compiler, its coder and the deadline rule's arithmetic in C;
#   3. it imports, every golden vector of tests/golden is made and read bit for bit, and what is in C reckons as its twin
#      in Python does, to the last bit (pytest, inside);
#   4. the demo's heads give what they gave where they were trained, and the agent's command line sends a frame that a
#      server on this machine's own processor answers (check.py, inside);
#   5. the agent's memory. What the emulator takes for itself is in the figure: a board needs less.
# Speed under emulation says nothing about a board.
set -euo pipefail
work=${1:-/var/tmp/headwater-aarch64}
if [[ -z ${APART:-} ]]; then # mounts in a name space of their own vanish with it
	((EUID == 0)) || { echo "this makes a root file system and enters it; run it as root" >&2 && exit 1; }
	APART=1 exec unshare --mount --propagation private "$0" "$work"
fi
cd "$(dirname "$0")/../.."
suite=bookworm python=3.11
root=$work/root wheels=$work/wheels

say() { printf '\n== %s\n' "$*"; }

need() {
	for tool in debootstrap qemu-aarch64-static update-binfmts headwater; do
		command -v "$tool" >/dev/null || missing+=("$tool")
	done
	if [[ -n ${missing:-} ]]; then
		echo "missing: ${missing[*]}; apt install debootstrap qemu-user-static binfmt-support, and put the" \
			"environment that has headwater first in PATH" >&2
		exit 1
	fi
}

emulate() { # have the kernel hand aarch64 programs to the emulator, as a booted Debian does by itself
	[[ -e /proc/sys/fs/binfmt_misc/status ]] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
	[[ -e /proc/sys/fs/binfmt_misc/qemu-aarch64 ]] || update-binfmts --enable qemu-aarch64
}

system() {
	if [[ ! -e $root/.complete ]]; then
		say "Debian $suite for arm64, with its compiler"
		rm -rf "$root"
		debootstrap --arch=arm64 --foreign --variant=minbase --include=python3,python3-dev,gcc,libc6-dev \
			"$suite" "$root" >"$work/debootstrap.log"
		DEBIAN_FRONTEND=noninteractive chroot "$root" /debootstrap/debootstrap --second-stage >>"$work/debootstrap.log"
		touch "$root/.complete"
	fi
	# No /sys: onnxruntime would take this machine's processors for its own, and crash. Without it, it warns.
	mount -t proc proc "$root/proc"
	mount --bind /dev "$root/dev"
	mount --bind "$work" "$root/mnt"
}

inside() { # a command in the arm64 system
	chroot "$root" env -i PATH=/opt/headwater/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
		OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/mnt/source "$@"
}

packages() { # ready-made ones only: this stops at the first that has none for aarch64
	say "aarch64 wheels of all that headwater needs"
	mkdir -p "$wheels"
	python3 - <<-'END' >"$work/requirements.txt"
		import tomllib
		from pathlib import Path

		project = tomllib.loads(Path("pyproject.toml").read_text())
		extras = project["project"]["optional-dependencies"]
		tests = [each for each in extras["dev"] if each.startswith("pytest")]
		build = [*project["build-system"]["requires"], "wheel", "pip"]
		print(*project["project"]["dependencies"], *extras["camera"], *build, *tests, sep="\n")
	END
	python3 -m pip download --quiet --disable-pip-version-check --only-binary=:all: --implementation cp \
		--python-version "$python" --platform manylinux_2_28_aarch64 --platform manylinux_2_17_aarch64 \
		--platform manylinux2014_aarch64 --constraint constraints.txt --dest "$wheels" \
		--requirement "$work/requirements.txt"
	echo "$(ls "$wheels" | wc -l) wheels, $(ls "$wheels" | grep -c aarch64) of them with machine code"
}

source_tree() { # what git knows or would add
	rm -rf "$work/source"
	mkdir -p "$work/source"
	git ls-files --cached --others --exclude-standard -z |
		while IFS= read -r -d '' name; do [[ ! -e $name ]] || printf '%s\0' "$name"; done |
		tar --create --null --files-from=- | tar --extract --directory "$work/source"
}

install() {
	say "install, headwater built by $(inside gcc --version | head -1)"
	local pip=(inside python "/mnt/wheels/$(basename "$wheels"/pip-*.whl)/pip" install --quiet --no-index
		--disable-pip-version-check --root-user-action ignore --find-links /mnt/wheels)
	local installed=$root/opt/headwater/requirements.txt
	if ! cmp --silent "$work/requirements.txt" "$installed"; then
		inside python3 -m venv --clear --without-pip /opt/headwater
		"${pip[@]}" --requirement /mnt/requirements.txt
		cp "$work/requirements.txt" "$installed"
	fi
	"${pip[@]}" --no-deps --no-build-isolation --force-reinstall /mnt/source 2>"$work/build.log" ||
		{ cat "$work/build.log" >&2 && exit 1; }
}

golden() {
	say "golden vectors, bit for bit, and what is in C against its twin in Python"
	inside sh -c 'cd /mnt/source && exec python -m pytest -q --noconftest -p no:cacheprovider -p no:xdist \
		tests/compression/test_golden.py tests/compression/updates/test_golden.py tests/device/control/test_kernel.py'
}

frame() {
	say "frames on $(inside uname -m), a server on $(uname -m)"
	local ready=$work/ready
	rm -f "$ready"
	mkfifo "$ready"
	headwater server --bundle simulations/bundles/solar --listen 127.0.0.1:0 --http '' --log-level warning >"$ready" &
	trap "kill $!" EXIT
	local line
	read -r line <"$ready"
	inside sh -c "cd / && exec python /mnt/source/tests/aarch64/check.py $(sed -E 's/.*grpc=([^ ]+).*/\1/' <<<"$line")"
}

mkdir -p "$work"
need
emulate
system
packages
source_tree
install
golden
frame
