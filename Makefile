# What people run: make demo, make test, make plugin. README.md tells more.
GO      ?= go
DOCKER  ?= docker
PLUGIN  ?= docker-flannel:latest
LINT    := golangci-lint
LINT_AT := v2.15.0
ROOTFS  := build/plugin/rootfs
SOURCES := $(shell find . -name '*.go' -not -path './build/*') go.mod go.sum
FUZZ    ?= 50000
CLI_PLUGINS ?= /usr/local/lib/docker/cli-plugins
SOAK    ?= 10m

.PHONY: all plugin push install-cli lab unit lint fuzz test demo bench latency soak clean
all: plugin

# plugin leaves build/plugin ready for: docker plugin create docker-flannel build/plugin
plugin: $(ROOTFS)/flannel build/plugin/config.json

$(ROOTFS)/flannel: $(SOURCES)
	mkdir -p $(addprefix $(ROOTFS)/,data certs host/plugins host/sysnet host/run run/docker/plugins)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ .

build/plugin/config.json: config.json
	mkdir -p build/plugin
	cp config.json $@

# push needs a Docker engine: make push PLUGIN=host:5000/docker-flannel:TAG
# An engine holds a plugin's content under one name only, so the one that is
# pushed does not stay.
push: plugin
	$(DOCKER) plugin create $(PLUGIN) build/plugin
	$(DOCKER) plugin push $(PLUGIN); status=$$?; $(DOCKER) plugin rm $(PLUGIN) && exit $$status

# install-cli makes the same binary the command docker flannel, for all users of
# this host.
install-cli: $(ROOTFS)/flannel
	install -D -m 755 $< $(DESTDIR)$(CLI_PLUGINS)/docker-flannel
	@echo "installed $(DESTDIR)$(CLI_PLUGINS)/docker-flannel; try: docker flannel status"

# unit runs without root.
unit:
	$(GO) vet ./...
	$(GO) test -race -timeout 30m ./...

lint: build/tools/$(LINT)-$(LINT_AT)
	$< run --allow-parallel-runners ./...

build/tools/$(LINT)-$(LINT_AT):
	GOBIN=$(CURDIR)/build/tools $(GO) install github.com/golangci/golangci-lint/v2/cmd/$(LINT)@$(LINT_AT)
	mv build/tools/$(LINT) $@

# fuzz gives every fuzz target FUZZ inputs. With a time instead of a count, as 5s,
# go test now and then calls its own deadline a failure (golang/go#75804).
fuzz:
	GO=$(GO) scripts/fuzz $(FUZZ)

# lab installs what demo and test need, as root, and says what.
lab:
	scripts/lab-setup

# test is everything, as root. Packages with a lab are tested one at a time, since
# each has hosts of its own and looks at the time; those with engines come last.
test: lab lint unit fuzz plugin
	$(GO) vet -tags lab,soak ./...
	$(GO) test -race -tags lab -p 1 -timeout 30m ./overlay/...
	CGO_ENABLED=0 $(GO) test -tags lab -p 1 -count 1 -timeout 80m ./internal/... ./examples/...

demo: lab plugin
	$(GO) run ./internal/demo

# bench measures the data path of every backend beside the limit and the
# alternatives, in under ten minutes.
bench: lab
	$(GO) run ./internal/bench

# latency measures docker run on our network beside the engine's own bridge, and
# an engine's start with and without the plugin.
latency: lab plugin
	$(GO) test -tags lab -run '^$$' -bench 'DockerRun|EngineStart' -benchtime 1x -timeout 20m ./internal/e2e

# soak starts and stops five hundred containers while the plugin dies at every
# step, and then has SOAK of faults at random. It prints the SEED to repeat them.
soak: lab plugin
	E2E_STARTS=500 SOAK=$(SOAK) SEED=$(SEED) CGO_ENABLED=0 $(GO) test -tags lab,soak -run 'TestLeaks|TestSoak' -count 1 -timeout 0 -v ./internal/e2e

clean:
	rm -rf build
