# SPDX-License-Identifier: Apache-2.0
# Test tiers. A test that cannot run prints why and is skipped (exit 77); in test-priv a skip fails.
test:
	$(Q)tools/install-deps.sh build test || echo "make test: going on without them"
	$(Q)$(MAKE) --no-print-directory test-run
test-run: all unit-programs check-deps
	$(Q)$(PYTHON) tests/run.py all $(B) $(UNIT)
test-system: all
	$(Q)$(PYTHON) tests/run.py system $(B) $(TESTS)
PRIV := $(patsubst tests/priv/%.c,$(B)/tests/priv/%,$(sort $(wildcard tests/priv/*.c)))
$(B)/tests/priv/%: $(B)/tests/priv/%.o $(B)/libbpf_side.a $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(LIBS_RING) -lbpf -lcmocka
test-priv: all $(PRIV)
	$(Q)$(PYTHON) tests/run.py priv $(B) $(PRIV)
BENCH := $(patsubst tests/bench/%.c,$(B)/tests/bench/%,$(sort $(wildcard tests/bench/*.c)))
$(B)/tests/bench/%: $(B)/tests/bench/%.o $(B)/libaggregator.a $(B)/libbpf_side.a $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(LIBS_RING) -lbpf -lseccomp
bench: all $(BENCH)
	$(Q)$(PYTHON) tests/bench/run.py $(B) $(BENCH)
FUZZ := $(patsubst tests/fuzz/%.c,build/fuzz/%,$(sort $(wildcard tests/fuzz/*.c)))
build/fuzz/%: tests/fuzz/%.c $(wildcard common/*.c common/*.h bpf/route.h shm/*.h)
	@mkdir -p $(@D)
	$(Q)$(CLANG) -std=gnu11 -g -O1 -D_GNU_SOURCE -I. -fsanitize=fuzzer,address,undefined -o $@ $< \
		common/base.c common/http.c common/problem.c common/safetensors.c common/crypto.c common/crc32c.c \
		-lcrypto -lisal -lxxhash
SECONDS ?= 20
fuzz: $(FUZZ)
	$(Q)for f in $(FUZZ); do echo "== $$f"; mkdir -p build/fuzz/corpus-$$(basename $$f); \
		$$f -max_total_time=$(SECONDS) -verbosity=0 -print_final_stats=1 \
		build/fuzz/corpus-$$(basename $$f) $(wildcard tests/fuzz/corpus) || exit 1; done
check-deps:
	$(Q)$(PYTHON) -c 'import pytest, numpy' || { echo "make install-deps first (python3-pytest, python3-numpy)"; exit 1; }
bench-stragglers: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/stragglers.py
.PHONY: bench-stragglers
RUNS ?= 50
SEED ?= 1
chaos: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin RUNS=$(RUNS) SEED=$(SEED) $(PYTHON) tests/chaos.py
.PHONY: chaos check-deps test-run
load: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/load.py $(LOAD)
.PHONY: load
# Everything about k8s/ that needs no cluster (and no kustomize: tests/k8s/render.py).
k8s-check: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/k8s/check.py $(B)
.PHONY: k8s-check
bench-idle: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/idle.py
.PHONY: bench-idle
bench-control: all $(B)/tests/bench/control/driver
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/control.py $(abspath $(B))/tests/bench/control/driver
.PHONY: bench-control
