//! Ansible's words and what becomes of them.

use super::{cell, generated};
use crate::project::ansible::{Place, Support, WORDS, Word};
use crate::resolve::decode;

const HEAD: &str = "# Ansible's words

What works as in Ansible, what may stay and changes nothing, and what is refused, with what to write instead.
Made of the table that the program itself goes by. [coming-from-ansible.md](coming-from-ansible.md) tells it as a story.

Modules may be written with their collection (`ansible.builtin.copy`, `community.docker.docker_network`), and with
arguments on one line (`copy: src=a dest=/b`, `command: make creates=/x`).
";

/// The page.
pub(super) fn page() -> String {
    let mut out = generated("ansible");
    out.push_str(HEAD);
    out.push_str("\n## Supported\n\n| word | on |\n|---|---|\n");
    for word in WORDS.iter().filter(|word| word.support == Support::Supported) {
        out.push_str(&format!("| `{}` | {} |\n", word.name, places(word)));
    }
    let kinds: Vec<String> = decode::kinds().map(|kind| format!("[`{0}`](reference.md#{0})", kind.name)).collect();
    out.push_str(&format!("\nKinds, which stand where Ansible has modules: {}.\n", kinds.join(", ")));
    out.push_str("\n## Accepted without effect\n\n| word | on | why |\n|---|---|---|\n");
    for word in WORDS {
        if let Support::Ignored(reason) = word.support {
            out.push_str(&format!("| `{}` | {} | {} |\n", word.name, places(word), cell(reason)));
        }
    }
    out.push_str("\n## Refused\n\n| word | on | instead |\n|---|---|---|\n");
    for word in WORDS {
        if let Support::Refused(instead) = word.support {
            out.push_str(&format!("| `{}` | {} | {} |\n", word.name, places(word), cell(instead)));
        }
    }
    out
}

/// What is said about one word.
pub(super) fn one(name: &str) -> Option<String> {
    let lines: Vec<String> = WORDS
        .iter()
        .filter(|word| word.name == name)
        .map(|word| match word.support {
            Support::Supported => format!("`{name}` ({}): works as in Ansible\n", places(word)),
            Support::Ignored(reason) => format!("`{name}` ({}): may stay, without effect: {reason}\n", places(word)),
            Support::Refused(instead) => format!("`{name}` ({}): refused; {instead}\n", places(word)),
        })
        .collect();
    (!lines.is_empty()).then(|| lines.concat())
}

fn places(word: &Word) -> String {
    let name = |place: &Place| match place {
        Place::Play => "plays",
        Place::Task => "tasks",
        Place::Block => "blocks",
        Place::Role => "roles",
        Place::Module => "a module",
    };
    word.places.iter().map(name).collect::<Vec<_>>().join(", ")
}
