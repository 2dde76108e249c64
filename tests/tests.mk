# SPDX-License-Identifier: Apache-2.0
# Test tiers. A test that cannot run prints why and is skipped (exit 77); in test-priv a skip fails.
# Of make bench-lifl; a system test runs it tiny.
LIFL_PROGRAMS := $(B)/tests/bench/lifl/function $(B)/tests/bench/lifl/proxy $(B)/tests/bench/sender
test:
	$(Q)tools/install-deps.sh build test || echo "make test: going on without them"
	$(Q)$(MAKE) --no-print-directory test-run
test-run: all unit-programs check-deps $(LIFL_PROGRAMS)
	$(Q)$(PYTHON) tests/run.py all $(B) $(UNIT)
test-system: all $(LIFL_PROGRAMS)
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
# The baselines it is compared with (packages: set `bench` of tools/install-deps.sh); what cannot be built is skipped.
GRPC := $(patsubst %,build/bench/grpc_%,server client)
build/bench/aggregate.pb.cc: tests/bench/baselines/aggregate.proto
	@mkdir -p $(@D)
	$(Q)protoc -I $(<D) --cpp_out=$(@D) --grpc_out=$(@D) --plugin=protoc-gen-grpc="$$(command -v grpc_cpp_plugin)" $<
	$(Q)protoc -I $(<D) --python_out=$(@D) $<
$(GRPC): build/bench/%: tests/bench/baselines/%.cc build/bench/aggregate.pb.cc
	@echo "  CXX     $@"
	$(Q)$(CXX) -std=c++17 -O3 -march=native -Wall -Wextra -Ibuild/bench -o $@ $< build/bench/aggregate.pb.cc \
		build/bench/aggregate.grpc.pb.cc -Wl,--as-needed -lgrpc++ -lgrpc -lgpr -lprotobuf -labsl_synchronization -pthread
bench-baselines: $(GRPC)
bench-programs: all $(BENCH)
bench: bench-programs
	$(Q)tools/install-deps.sh build test bench || echo "make bench: going on without them"
	$(Q)$(MAKE) --no-print-directory bench-baselines || echo "make bench: no gRPC baselines"
	$(Q)tests/bench/flower.sh
	$(Q)$(PYTHON) tests/bench/run.py $(B) QUICK=$(QUICK) FULL=$(FULL) ONLY=$(ONLY) SYSTEMS=$(SYSTEMS) LIMIT=$(LIMIT) MB=$(MB) UPDATES=$(UPDATES)
.PHONY: bench bench-baselines bench-programs
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
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin RUNS=$(RUNS) SEED=$(SEED) JOBS=$(JOBS) $(PYTHON) tests/chaos.py
.PHONY: chaos check-deps test-run
load: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/load.py $(LOAD)
.PHONY: load
# Everything about k8s/ that needs no cluster (and no kustomize: tests/k8s/render.py).
k8s-check: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/k8s/check.py $(B)
.PHONY: k8s-check
traces: RUNS := $(if $(filter file,$(origin RUNS)),200,$(RUNS))
traces: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin RUNS=$(RUNS) SEED=$(SEED) $(PYTHON) tests/reference/traces.py
.PHONY: traces
# One gateway, 100,000 clients on as many sockets, for SECONDS (300); docs/load.md.
bench-clients: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/clients.py
.PHONY: bench-clients
# What happens after a round's last byte, by the debug lines: AFTER='MB=1 UPDATES=8 ROUNDS=12 ACCUMULATE=f32'.
bench-after: bench-programs
	$(Q)$(PYTHON) tests/bench/after.py $(B) $(AFTER)
.PHONY: bench-after
bench-idle: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/idle.py
.PHONY: bench-idle
bench-control: all $(B)/tests/bench/control/driver
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/control.py $(abspath $(B))/tests/bench/control/driver
.PHONY: bench-control
bench-policies: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/policies.py
.PHONY: bench-policies
chaos-nodes: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin RUNS=$(RUNS) SEED=$(SEED) $(PYTHON) tests/chaos_nodes.py
.PHONY: chaos-nodes
# The images (buildah and mmdebstrap, or Docker), and running them as the manifests say (podman, root).
image:
	$(Q)CLIENT=$(CLIENT) tools/image.sh $(if $(AGAIN),--again)
image-test:
	$(Q)$(PYTHON) tests/k8s/smoke.py
# start.sh of components/redis-sentinel with real Redis and Sentinels: fail-over, rejoin, restart of all (root).
k8s-redis:
	$(Q)$(PYTHON) -m pytest -q -p no:cacheprovider tests/k8s/test_start.py
# What wants Kubernetes' own programs, from $KUBE_BIN (k8s/README.md); skipped without them. The second: root, and
# the images (make image CLIENT=1).
k8s-apiserver: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) -m pytest -q -s -p no:cacheprovider tests/k8s/test_apiserver.py
k8s-cluster:
	$(Q)$(PYTHON) tests/k8s/kube-up $(foreach i,$(wildcard build/image/tributary*.tar),--image $(i)) \
		env OVERLAY=$(CURDIR)/k8s/overlays/single-node $(PYTHON) tests/k8s/cluster
.PHONY: image image-test k8s-redis k8s-apiserver k8s-cluster
# The paper's ablation (LIFL). Table and picture of a run: tests/bench/lifl_plot.py
bench-lifl: all $(LIFL_PROGRAMS)
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin $(PYTHON) tests/bench/lifl.py $(B) QUICK=$(QUICK) FULL=$(FULL) ONLY=$(ONLY)
.PHONY: bench-lifl
TIMES ?= 3
bench-failover: all
	$(Q)TRIBUTARY_BIN=$(abspath $(B))/bin TIMES=$(TIMES) $(PYTHON) tests/bench/failover.py
.PHONY: bench-failover
