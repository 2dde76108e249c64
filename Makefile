# SPDX-License-Identifier: Apache-2.0
# One non-recursive Makefile. Everything made lands in build/<flavour>/, `build/bin` links to the last one.
#
#   make            programs            make test        unit + system tests (no privilege needed)
#   make demo       the whole story     make test-priv   the privileged tier (root; a skip fails)
#   make lint       format and layers   make bench       JSON lines in build/bench.jsonl
#   make bench-lifl LIFL's ablation over 5 nodes: build/bench-lifl.jsonl (docs/performance.md)
#   make load       tributary load against a node of its own; LOAD='--clients 1000 ..' for other options
#   make SANITIZE=address|thread ...    the same with a sanitizer
#   make k8s-check                      manifests, without a cluster   make image, image-test   containers (k8s/README.md)
#   make install-deps                   Debian packages it needs (used by demo and .ci/run)

SANITIZE ?=
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang-14
BPFTOOL ?= $(firstword $(wildcard /usr/sbin/bpftool /usr/bin/bpftool) bpftool)
PYTHON ?= /usr/bin/python3
V ?=
Q := $(if $(V),,@)

FLAVOUR := $(if $(SANITIZE),$(SANITIZE),release)
B := build/$(FLAVOUR)
MULTIARCH := $(shell $(CC) -print-multiarch 2>/dev/null)

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wswitch-enum -Wvla \
	-Wformat=2 -Wundef -Wpointer-arith -fno-common
MAKEFLAGS += -r
CFLAGS_ALL := -std=gnu11 -g -O2 -ffunction-sections $(WARN) -D_GNU_SOURCE -I. -I$(B)/gen -fstack-protector-strong \
	-fno-omit-frame-pointer -ffp-contract=off -pthread $(CFLAGS)
LDFLAGS_ALL := -pthread -Wl,--as-needed,--gc-sections $(LDFLAGS)
ifeq ($(SANITIZE),address)
CFLAGS_ALL += -fsanitize=address,undefined -fno-sanitize-recover=all
LDFLAGS_ALL += -fsanitize=address,undefined
else ifeq ($(SANITIZE),thread)
CFLAGS_ALL += -fsanitize=thread
LDFLAGS_ALL += -fsanitize=thread
else ifneq ($(SANITIZE),)
$(error SANITIZE is address or thread)
else
CFLAGS_ALL += -D_FORTIFY_SOURCE=2
JEMALLOC := -ljemalloc
endif
# DPDK: headers for shm/ring.c alone; the ring library alone, no EAL is ever started.
DPDK_CFLAGS := -isystem /usr/include/dpdk -isystem /usr/include/$(MULTIARCH)/dpdk -include rte_config.h \
	-DRTE_USE_C11_MEM_MODEL $(if $(filter x86_64%,$(MULTIARCH)),-march=corei7) -Wno-vla

# ---- what is made of what: the folder is the unit ----
src = $(sort $(filter-out %.bpf.c,$(wildcard $(1)/*.c)))
obj = $(patsubst %.c,$(B)/%.o,$(1))

COMMON := $(call obj,$(call src,common))
SHM := $(call obj,$(call src,shm))
BPF := $(call obj,$(call src,bpf))
GATEWAY := $(call obj,$(call src,gateway))
AGENT := $(call obj,$(call src,orchestrator/agent))
ORCHESTRATOR := $(call obj,$(call src,orchestrator)) $(B)/gen/functions_lua.o
CLI := $(call obj,$(call src,client/cli) $(call src,client/load))
LOAD_PURE := $(patsubst %,$(B)/client/load/%.o,arrivals histogram payload reply shapes slo)
# The numeric core is compiled once per ISA level and chosen at run time (aggregator/kernels.c).
ISA_x86_64 := v2 v3 v4
ISA_FLAGS_v2 := -march=x86-64-v2
ISA_FLAGS_v3 := -march=x86-64-v3
ISA_FLAGS_v4 := -march=x86-64-v4 -mprefer-vector-width=512
ISAS := $(if $(filter x86_64%,$(MULTIARCH)),$(ISA_x86_64),base)
KERNELS := $(ISAS:%=$(B)/aggregator/kernels_isa.%.o)
AGGREGATOR_LIB := $(call obj,$(filter-out aggregator/main.c aggregator/kernels_isa.c,$(call src,aggregator) $(call src,aggregator/rules))) $(KERNELS)
AGGREGATOR := $(B)/aggregator/main.o $(AGGREGATOR_LIB)

LIBS_COMMON := -levent_core -lhiredis -ljansson -ljwt -lssl -lcrypto -lisal -lxxhash -lcurl
LIBS_RING := -lrte_ring -lrte_eal
PROGRAMS := $(B)/bin/tributary $(B)/bin/tributary-orchestrator $(B)/bin/tributary-agent \
	$(B)/bin/tributary-gateway $(B)/bin/tributary-aggregator

all: $(PROGRAMS) build/bin
.PHONY: all clean lint test test-priv test-unit test-system bench demo install-deps check-deps format fuzz FORCE
.DELETE_ON_ERROR:
.SECONDARY:

build/bin: FORCE
	$(Q)mkdir -p $(B)/bin && ln -sfn $(FLAVOUR)/bin build/bin
FORCE:

$(B)/libcommon.a: $(COMMON)
$(B)/libshm.a: $(SHM)
$(B)/libbpf_side.a: $(BPF)
$(B)/libaggregator.a: $(AGGREGATOR_LIB)
$(B)/libload.a: $(LOAD_PURE)
$(B)/%.a:
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/bin/tributary: $(CLI) $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(LIBS_RING) $(JEMALLOC) -lm
$(B)/bin/tributary-orchestrator: $(ORCHESTRATOR) $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(JEMALLOC)
$(B)/bin/tributary-agent: $(AGENT) $(B)/libbpf_side.a $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(LIBS_RING) -lbpf $(JEMALLOC)
$(B)/bin/tributary-gateway: $(GATEWAY) $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ $(LIBS_COMMON) $(LIBS_RING) -lseccomp $(JEMALLOC) -lm
$(B)/bin/tributary-aggregator: $(AGGREGATOR) $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"; mkdir -p $(@D)
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $^ -lisal -lseccomp

$(B)/shm/ring.o: EXTRA := $(DPDK_CFLAGS)
$(B)/%.o: %.c
	@echo "  CC      $<"; mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(EXTRA) -MMD -MP -c -o $@ $<
$(B)/aggregator/kernels_isa.%.o: aggregator/kernels_isa.c
	@echo "  CC      $< ($*)"; mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) -O3 $(ISA_FLAGS_$*) -DTRIB_ISA=$* -MMD -MP -c -o $@ $<

# ---- generated ----
$(B)/gen/functions.lua: $(sort $(wildcard orchestrator/functions/*.lua))
	@mkdir -p $(@D)
	$(Q)cat $^ > $@
$(B)/gen/functions_lua.o: $(B)/gen/functions.lua
	$(Q)printf '.section .rodata\n.global trib_functions_lua\ntrib_functions_lua:\n.incbin "%s"\n.byte 0\n.section .note.GNU-stack,"",%%progbits\n' $< > $(@:.o=.S)
	$(Q)$(CC) -c -o $@ $(@:.o=.S)
$(B)/gen/route.bpf.o: bpf/route.bpf.c $(wildcard bpf/*.h) shm/descriptor.h
	@echo "  BPF     $<"; mkdir -p $(@D)
	$(Q)$(CLANG) -O2 -g -target bpf -mcpu=v3 -Wall -Werror -I. -I/usr/include/$(MULTIARCH) -c -o $@ $<
$(B)/gen/route.skel.h: $(B)/gen/route.bpf.o
	$(Q)$(BPFTOOL) gen skeleton $< name route_bpf > $@
$(B)/bpf/loader.o: $(B)/gen/route.skel.h

-include $(shell find $(B) -name '*.d' 2>/dev/null)

# ---- unit tests: tests/unit/<folder>_<file>.c, one program each ----
UNIT := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(sort $(wildcard tests/unit/*.c)))
$(B)/tests/unit/client_load: $(B)/libload.a
$(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/libaggregator.a $(B)/libbpf_side.a $(B)/libshm.a $(B)/libcommon.a
	@echo "  LINK    $@"
	$(Q)$(CC) $(LDFLAGS_ALL) -o $@ $< $(filter %/libload.a,$^) $(B)/libaggregator.a $(B)/libbpf_side.a \
		$(B)/libshm.a $(B)/libcommon.a $(LIBS_COMMON) $(LIBS_RING) -lbpf -lseccomp -lcmocka -lm
unit-programs: $(UNIT)
test-unit: $(UNIT)
	$(Q)$(PYTHON) tests/run.py unit $(B) $(UNIT)

include tests/tests.mk

install-deps:
	$(Q)tools/install-deps.sh
format:
	$(Q)clang-format-14 -i $(shell git ls-files -co --exclude-standard '*.c' '*.h')
lint:
	$(Q)tools/lint.sh
demo:
	$(Q)tools/demo.sh
clean:
	$(Q)rm -rf build
