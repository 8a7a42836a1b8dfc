//! Placeholder until merged.
use crate::resource::observe::{Observations, Question};
use crate::shell::Script;
pub fn script(_q: &[Question], _n: &str) -> Script {
    Script::new()
}
pub fn parse(_q: &[Question], _n: &str, _o: &[u8]) -> Observations {
    Observations::default()
}
