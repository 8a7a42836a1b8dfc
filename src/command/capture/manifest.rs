//! What an archive of evidence says of itself: who made it when, and every part's digest.

use serde::{Deserialize, Serialize};

/// The first field of every manifest.
pub(super) const FORMAT: &str = "soc-provision evidence 1";

/// The manifest, the last member of an archive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: String,
    /// The host's name in the inventory, and what it calls itself.
    pub(super) host: String,
    pub(super) hostname: String,
    pub(super) machine_id: String,
    pub(super) boot_id: String,
    /// What was asked for, in words.
    pub(super) scope: String,
    pub(super) reason: String,
    pub(super) signed_off: SignedOff,
    /// Containers that were, or had been, taken off their networks.
    pub(super) contained: Vec<Contained>,
    /// Every part was had, whole.
    pub(super) complete: bool,
    pub(super) parts: Vec<Part>,
    /// Parts that could not be had at all.
    pub(super) missing: Vec<Missing>,
}

/// Who answers for the archive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SignedOff {
    pub(super) who: String,
    pub(super) from: String,
    pub(super) run: String,
    pub(super) tool: String,
    pub(super) revision: String,
    pub(super) started: String,
    pub(super) finished: String,
}

/// A container off its networks.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Contained {
    pub(super) container: String,
    pub(super) id: String,
    pub(super) by: String,
    /// By this run, not by an earlier one.
    pub(super) now: bool,
    pub(super) networks: Vec<String>,
}

/// One part of the archive.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) name: String,
    /// What it is.
    pub(super) what: String,
    pub(super) bytes: u64,
    pub(super) sha256: String,
    /// By the controller's clock, in UTC.
    pub(super) started: String,
    pub(super) finished: String,
    /// The exit status of what printed it; none for what the controller wrote.
    pub(super) status: Option<i32>,
    /// What that said on stderr.
    pub(super) said: String,
    /// Why it is not whole, if it is not.
    pub(super) cut: Option<String>,
}

/// A part that could not be had.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Missing {
    pub(super) name: String,
    pub(super) why: String,
}

/// A moment, for the record.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
