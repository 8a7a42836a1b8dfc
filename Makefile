# What a new machine (Debian or Ubuntu with Rust) needs: `make demo` and `make test` install the rest.
.PHONY: demo test prove bench vm lint unit e2e docs release deps clean-lab

# The main job on throw-away hosts: bare Debian to a healthy stack, twice.
demo: deps release
	lab/demo

# Everything that takes minutes: format, lints, unit, ssh, content, containers, and one emulated machine with one of each
# proof that needs a kernel of its own. What measures moments has the machine alone.
test: deps lint
	cargo build --locked --bins
	cargo test --locked --lib --bins --test canary --test cli --test content --test ssh --test tidy -- --test-threads=2
	cargo test --locked --test e2e -- --test-threads=3 --skip latency:: --skip interrupted::
	cargo test --locked --test e2e -- --test-threads=1 latency:: interrupted::
	cargo test --locked --test vm -- kernel::

# Every proof in full, resumable; hours. Writes the table of docs/PROOF.md.
prove: deps
	lab/prove

# Against the peers, on the same hosts in one sitting; about 20 minutes. Writes docs/BENCHMARKS.md.
bench: deps release
	bench/run

# On an emulated machine with a kernel of its own.
vm: deps
	cargo test --locked --test vm -- --test-threads=1 --nocapture

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets --quiet -- -D warnings

unit:
	cargo test --locked --lib

e2e: deps
	cargo test --locked --test e2e -- --test-threads=1 --nocapture

# The generated pages of the reference; a test says if they are stale.
docs:
	cargo run --locked -- docs --write docs

release:
	cargo build --locked --release

deps:
	lab/install-deps

clean-lab:
	lab/down --all
