# SPDX-License-Identifier: GPL-2.0
# The front door: every target is one line to the tool root, where all work is done (tools/setup/enter).
# The first use of a target makes what it needs; a later one finds it in the cache.

KERNEL ?= $(shell . tools/setup/versions && echo $$KERNEL_DEFAULT)
FILTER ?=
SEED ?= 1
PREFIX ?= /usr/local
export KERNEL FILTER MODULE V

enter := tools/setup/enter
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

help: ## lists the targets
	@echo "usage: make TARGET [KERNEL=$(KERNEL)] [FILTER=name] [V=1]"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 18
	@echo
	@echo "  KERNEL  the stock Debian kernel to build for and to boot; \$$(uname -r) is your own, debug the debug kernel"
	@echo "  FILTER  the part of the tests to run, an expression over their names (pytest's -k); of bench, names"
	@echo "  V=1     shows the commands of the module build"
	@echo "  Everything made is in \$${DM_RS_CACHE:-~/.cache/dm-rs} and in build/."

modules: ## builds the modules for KERNEL: build/KERNEL/*.ko
	@tools/setup/build

run: modules ## shows the main job in a guest: a disk on a slow server is in use while it is cloned
	@tools/setup/guest >/dev/null
	@$(enter) tools/demo/clone

shell: modules ## boots a guest with the modules loaded, for trying things by hand
	@tools/setup/guest >/dev/null
	@$(enter) tools/testing/shell

test: modules ## runs the tests, on this machine and in guests (FILTER=name for a part)
	@tools/setup/guest >/dev/null
	@$(enter) tools/testing/run-tests

bench: modules ## measures the targets, row by row, and writes Documentation/performance
	@tools/setup/guest >/dev/null
	@$(enter) tools/testing/bench/bench

profile: modules ## counts the instructions of rows by function: make profile FILTER=rollback
	@tools/setup/guest >/dev/null
	@$(enter) tools/testing/bench/profile

test-crash: modules ## tries thousands of power cuts, and modules that must not survive them (SEED=number)
	@tools/setup/guest >/dev/null
	@DM_SEED=$(SEED) DM_CUTS=50 $(enter) tools/testing/run-tests tools/testing/tests/all_power_cuts.py \
		tools/testing/tests/lc/test_recovery.py::test_flushed_writes_survive_power_cuts

test-faults: modules ## builds modules with one fault each, which the tests must notice
	@tools/setup/guest >/dev/null
	@$(enter) tools/testing/run-tests tools/testing/tests/all_faults.py

test-soak: modules ## works lc hard for a few minutes, on four processors at the same time (SEED=number)
	@tools/setup/guest >/dev/null
	@DM_SEED=$(SEED) DM_CPUS=4 DM_PARALLEL=1 $(enter) tools/testing/run-tests tools/testing/tests/lc/all_soaks.py

test-files: modules ## changes files at random ten thousand times while they are followed (SEED=number)
	@tools/setup/guest >/dev/null
	@DM_SEED=$(SEED) DM_STEPS=10000 $(enter) tools/testing/run-tests tools/testing/tests/dmstats/test_random_files.py

test-interpose: modules ## attaches and detaches a thousand times under load, beside other tracers
	@tools/setup/guest >/dev/null
	@DM_ROUNDS=1000 $(enter) tools/testing/run-tests tools/testing/tests/interpose/test_rounds.py

debug-kernel: ## builds the kernel that checks itself, for `make test KERNEL=debug` (half an hour, once)
	@tools/setup/kernel debug >/dev/null

dmstats: ## builds dmstats and dmfilemapd: tools/target/release
	@$(enter) cargo build -q --release --locked --manifest-path tools/Cargo.toml --package dmstats

install-dmstats: dmstats ## installs these, their pages, completions and service (PREFIX=/usr/local DESTDIR=)
	@tools/setup/install-dmstats "$(DESTDIR)" "$(PREFIX)"

check: ## reads the sources: formats, lints, documentation, licences, no unsafe in the targets
	@tools/setup/check

fmt: ## formats all Rust
	@$(enter) sh -c "git ls-files '*.rs' | xargs rustfmt --edition 2021"

doc: ## writes the documentation of the crates: build/KERNEL/doc
	@tools/setup/build DM_RUSTDOC=y
	@echo "open build/$(KERNEL)/doc/dm/index.html"

rust-analyzer: modules ## writes rust-project.json for editors
	@tools/setup/build rust-analyzer
	@$(enter) tools/setup/rust-project "$$(tools/setup/toolroot)" "build/$(KERNEL)"

clean: ## removes what was built here
	rm -rf build tools/target rust-project.json

distclean: clean ## removes the cache as well: tool root, kernels, guest
	rm -rf "$${DM_RS_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/dm-rs}"

.PHONY: help modules run shell test test-crash test-faults test-soak test-files test-interpose bench profile dmstats install-dmstats debug-kernel check fmt doc rust-analyzer clean distclean
