//! `docs`: the reference, made of what the program itself goes by: kinds with their schemas,
//! checks, functions of templates, Ansible's words, the precedence of variables.

mod functions;
mod kinds;
mod schema;
mod variables;
mod words;

use crate::cli::docs::DocsArgs;
use crate::command::{complain, print};
use crate::diagnostic::{Exit, nearest};
use crate::resolve::{checks, decode, helpers};

/// The pages: name, file in `docs/`, text.
type Page = (&'static str, &'static str, fn() -> String);

const PAGES: &[Page] = &[
    ("kinds", "reference.md", kinds::page),
    ("functions", "functions.md", functions::page),
    ("ansible", "ansible-words.md", words::page),
    ("variables", "variables.md", variables::page),
];

/// Prints a page, or writes all of them.
pub(super) fn run(arguments: &DocsArgs) -> Exit {
    if let Some(directory) = &arguments.write {
        for (_, file, text) in PAGES {
            let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(directory.join(file), text()));
            if let Err(error) = written {
                complain(&format!("error: {}: {error}", directory.join(file).display()));
                return Exit::Usage;
            }
        }
        return Exit::Fine;
    }
    let name = arguments.page.as_str();
    let page = PAGES.iter().find(|(page, _, _)| *page == name).map(|(_, _, text)| text());
    if let Some(text) = page.or_else(|| kinds::one(name)).or_else(|| functions::one(name)).or_else(|| words::one(name)) {
        print(&text);
        return Exit::Fine;
    }
    let names = PAGES.iter().map(|(page, _, _)| *page).chain(decode::kinds().map(|kind| kind.name)).chain(checks::names());
    let names = names.chain(helpers::FUNCTIONS.iter().map(|function| function.name));
    let hint = match nearest(name, names) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "pages: kinds, functions, ansible, variables; or the name of a kind, a check or a function".to_owned(),
    };
    complain(&format!("error: there is no page `{name}`\nhint: {hint}"));
    Exit::Usage
}

/// First line of every page.
fn generated(name: &str) -> String {
    format!("<!-- Made by `soc-provision docs {name}`; change the source, then run `make docs`. -->\n")
}

/// Text for a cell of a table.
fn cell(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|")
}
