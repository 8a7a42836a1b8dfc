//! The reference of kinds and checks.

use serde_json::Value;

use super::{generated, schema};
use crate::composite;
use crate::resolve::checks::{self, CheckEntry};
use crate::resource::{self, KindEntry};

const HEAD: &str = "# Kinds of resources

What a task can declare. Each is written as a task with its name as the key; the words around it
(`name`, `when`, `loop`, `notify`, ...) are in [ansible-words.md](ansible-words.md). Values are templates
([functions.md](functions.md)). `soc-provision docs NAME` prints one of them.

";
const COMPOSITES: &str =
    "\n# Composite kinds\n\nThey expand into the kinds above, each of which is planned, changed and reported on its own.\n";
const CHECKS: &str = "\n# Checks

What must hold once everything was applied: entries of a role's `verify/main.yml`, run by `apply` at its end, by
`verify`, and by `gate: health`. All take `name`, `when`, `loop` and `tags` as tasks do.
";

/// All of them.
pub(super) fn page() -> String {
    let mut out = generated("kinds");
    out.push_str(HEAD);
    let list = |names: Vec<&str>| names.iter().map(|name| format!("[{name}](#{name})")).collect::<Vec<_>>().join(" ");
    out.push_str(&list(resource::KINDS.iter().chain(composite::KINDS).map(|kind| kind.name).collect()));
    out.push('\n');
    resource::KINDS.iter().for_each(|entry| out.push_str(&kind(entry)));
    out.push_str(COMPOSITES);
    composite::KINDS.iter().for_each(|entry| out.push_str(&kind(entry)));
    out.push_str(CHECKS);
    checks::CHECKS.iter().for_each(|entry| out.push_str(&check(entry)));
    out
}

/// One kind, one check, or both where they share a name.
pub(super) fn one(name: &str) -> Option<String> {
    let kinds = composite::KINDS.iter().chain(resource::KINDS).filter(|entry| entry.name == name).map(kind);
    let checks = checks::find(name).into_iter().map(|entry| format!("\nAs a check in `verify/main.yml`:\n{}", check(entry)));
    let text: String = kinds.chain(checks).collect();
    (!text.is_empty()).then(|| text.trim_start().to_owned())
}

fn kind(entry: &KindEntry) -> String {
    let mut notes = Vec::new();
    if let Some(field) = entry.shorthand {
        notes.push(format!("`{}: VALUE` is short for `{0}: {{{field}: VALUE}}`.", entry.name));
    }
    if !entry.secret_fields.is_empty() {
        let fields: Vec<String> = entry.secret_fields.iter().map(|field| format!("`{field}`")).collect();
        notes.push(format!("Secrets may be in: {}.", fields.join(", ")));
    }
    section(entry.name, entry.example, &(entry.schema)().to_value(), (entry.names)(), &notes)
}

fn check(entry: &CheckEntry) -> String {
    let notes = entry.shorthand.map(|field| format!("`{}: VALUE` is short for `{0}: {{{field}: VALUE}}`.", entry.name));
    section(entry.name, entry.example, &(entry.schema)().to_value(), &[], &notes.into_iter().collect::<Vec<_>>())
}

fn section(name: &str, example: &str, schema: &Value, names: &[&str], notes: &[String]) -> String {
    let about = schema.get("description").and_then(Value::as_str).unwrap_or_default();
    let mut out = format!("\n## {name}\n\n{about}\n\n```yaml\n{}\n```\n\n", example.trim_end());
    if !notes.is_empty() {
        out.push_str(&format!("{}\n\n", notes.join(" ")));
    }
    out.push_str(&schema::tables(schema, names));
    out
}
