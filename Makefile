# The front door; the work is done by Meson and by scripts/.
#   make run      build Holdfast and serve on 127.0.0.1:5000 with the data in ./data
#   make cluster  the same with three nodes, PostgreSQL, S3 and HAProxy, all in ./cluster
#   make test     build it and run every test
SHELL := /bin/bash

# The first port of the cluster.
PORT := 5000

.PHONY: run cluster build test asan tsan lint fuzz bench conformance install clean

run: build
	scripts/run

cluster: build
	scripts/setup cluster
	/usr/bin/python3 scripts/cluster --port $(PORT)

build:
	scripts/setup build
	scripts/configure build -Dbuildtype=release -Db_lto=true -Dtests=false
	ninja --quiet -C build holdfast

test:
	scripts/setup build test
	scripts/test

# The unit, functional and fault tests against a build with AddressSanitizer and UBSan.
asan:
	scripts/setup build test
	scripts/test unit functional fault

# The concurrency tests against a build with ThreadSanitizer.
tsan:
	scripts/setup build test
	scripts/test tsan

conformance: build
	scripts/conformance build/holdfast

lint:
	scripts/setup build test lint
	scripts/lint

# SECONDS_EACH=60 for each target
fuzz:
	scripts/setup build test fuzz
	scripts/fuzz

bench: build
	scripts/setup bench
	/usr/bin/python3 bench/run.py

install: build
	meson install -C build --no-rebuild

clean:
	rm -rf build build-*
