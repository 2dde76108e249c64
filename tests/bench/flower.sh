#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Flower from PyPI into build/bench/flower, once. Without a network the bench says why it is skipped.
FLOWER=${FLOWER:-flwr==1.41.0}
cd "$(dirname "$0")/../.." || exit 1
mkdir -p build/bench
[ ! -x build/bench/flower/bin/flwr ] || exit 0
rm -rf build/bench/flower
echo "  PIP     $FLOWER (PyPI; at most two minutes)"
if ! timeout 120 sh -c "/usr/bin/python3 -m venv build/bench/flower &&
	build/bench/flower/bin/pip install -q --disable-pip-version-check '$FLOWER' numpy" >build/bench/flower.log 2>&1; then
	rm -rf build/bench/flower
	[ -s build/bench/flower.log ] || echo "no answer from PyPI within two minutes" >build/bench/flower.log
fi
