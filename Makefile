# What a new machine (Debian or Ubuntu with Rust) needs: `make demo` and `make test` install the rest.
.PHONY: demo test lint unit e2e bench prove release deps clean-lab

# The main job on throw-away hosts: bare Debian to a healthy stack, twice.
demo: deps release
	lab/demo

# Everything: format, lints, unit, ssh, containers, one virtual machine.
test: deps lint
	cargo build --locked --bins
	cargo test --locked --lib --bins --tests -- --test-threads=2

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --quiet -- -D warnings

unit:
	cargo test --locked --lib

e2e: deps
	cargo test --locked --test e2e -- --test-threads=1 --nocapture

bench: deps release
	bench/run

# The long series of every bar; hours, resumable; writes docs/PROOF.md.
prove: deps release
	lab/prove

release:
	cargo build --locked --release

deps:
	lab/install-deps

clean-lab:
	lab/down --all
