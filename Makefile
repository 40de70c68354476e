# The commands of this project. `make help` lists them.

CARGO ?= cargo

# Where the case files are, with the folders validation, routing and analyze; and whether their expectations are made
# false, one after the other, to see that each of them is noticed.
CASES ?= ../shared/cases
NEGATIVE ?= 0

.PHONY: help demo build test check lint bench conformance live fuzz

help: ## this list
	@grep -E '^[a-z]+:.*## ' Makefile | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 14

demo: ## bookinfo and three dashboards behind the gateway, on this machine
	$(CARGO) run --release --locked -- demo

build: ## the product, target/release/limani
	$(CARGO) build --release --locked

test: ## everything that has to pass
	bash .ci/run

check: ## are the shipped settings and manifests right?
	$(CARGO) run --release --locked -- check -c conf/limani.toml

lint: ## format, clippy, licences
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings
	$(CARGO) deny check bans licenses sources

bench: ## the criterion benches: look-up, compile, forwarding
	$(CARGO) bench --locked

conformance: ## against Istio's own test cases in CASES; NEGATIVE=1 wants every falsified case to fail
	CASES=$(CASES) NEGATIVE=$(NEGATIVE) $(CARGO) test --lib --locked agreement::cases_agree -- --exact --nocapture

live: ## against what a real Istio did; needs ../shared/live, Go and PyYAML
	bash tests/live/run

fuzz: ## each fuzz target for a minute; needs cargo-fuzz
	bash fuzz/run 60
