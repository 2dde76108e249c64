# SPDX-License-Identifier: Apache-2.0
# Two images of one build: `tributary` (the programs) and `tributary-redis` (redis-server of Debian, for installations
# that do not bring their own). Nothing but what runs: no shell, no package manager in the first; busybox in the second,
# for the script that joins replicas. `make image` builds both, with buildah and a base made by mmdebstrap (no registry
# needed) or with Docker; this file is the same for both.
#
#   docker build --target tributary -t tributary:0.1.0 .
#   docker build --target redis -t tributary-redis:0.1.0 .
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS build
COPY tools/install-deps.sh /src/tools/install-deps.sh
RUN apt-get update && /src/tools/install-deps.sh build && \
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server redis-tools busybox-static \
    ca-certificates
COPY . /src
ARG SOURCE_DATE_EPOCH=0
RUN make -C /src -j"$(nproc)" all && /src/tools/image-root.sh /src/build/bin /out "${SOURCE_DATE_EPOCH}"

# Training clients of the example, for tests/k8s/cluster (make image CLIENT=1).
FROM ${BASE} AS client
RUN apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-numpy \
    python3-sklearn
COPY client /client
USER 65532:65532
ENTRYPOINT ["/usr/bin/python3"]

FROM scratch AS redis
COPY --from=build /out/redis/ /
USER 65532:65532
WORKDIR /data
ENTRYPOINT ["/usr/bin/redis-server"]

FROM scratch AS tributary
COPY --from=build /out/tributary/ /
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/usr/bin/tributary"]
