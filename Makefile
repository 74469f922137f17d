# What people run: make plugin, make demo, make test. README.md tells more.
GO      ?= go
PLUGIN  ?= docker-flannel:latest
ROOTFS  := build/plugin/rootfs
SOURCES := $(shell find . -name '*.go' -not -path './build/*') go.mod go.sum

.PHONY: all plugin push lab unit lint test demo fuzz clean
all: plugin

# plugin leaves build/plugin ready for: docker plugin create docker-flannel build/plugin
plugin: build/plugin/config.json $(ROOTFS)/flannel

$(ROOTFS)/flannel: $(SOURCES)
	mkdir -p $(ROOTFS)/data $(ROOTFS)/certs $(ROOTFS)/host/plugins $(ROOTFS)/host/sysnet $(ROOTFS)/run/docker/plugins
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ .

build/plugin/config.json: config.json
	mkdir -p build/plugin
	cp config.json $@

# push needs a Docker engine: make push PLUGIN=host:5000/docker-flannel:TAG
push: plugin
	docker plugin create $(PLUGIN) build/plugin
	docker plugin push $(PLUGIN)

# unit runs without root.
unit:
	$(GO) vet ./...
	$(GO) test -race ./...
