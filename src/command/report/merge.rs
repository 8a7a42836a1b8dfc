//! `report merge`: the runs of a fleet's parts as one.

use std::path::{Path, PathBuf};

use crate::cli::report::{MergeArgs, Plain, ReportArgs};
use crate::command::report::{place_here, wrong};
use crate::command::{complain, print};
use crate::diagnostic::{Exit, printable};
use crate::event::{Event, EventKind};
use crate::history::History;
use crate::report::findings;
use crate::report::json::{Document, SCHEMA};
use crate::report::recap::Summary;

/// Exit codes, the worst first (DESIGN 5).
const WORST: [u8; 8] = [250, 99, 5, 2, 4, 3, 1, 0];

/// Joins documents; exits as the worst of them did.
pub(super) fn run(arguments: &ReportArgs, merge: &MergeArgs) -> Exit {
    let documents: Result<Vec<(PathBuf, Document)>, String> =
        merge.files.iter().map(|path| read(path).map(|document| (path.clone(), document))).collect();
    let joined = match documents.and_then(join) {
        Ok(joined) => joined,
        Err(why) => return wrong(why),
    };
    if let Some(path) = &merge.out {
        if let Err(error) = crate::command::whole_file(path, format!("{}\n", joined.render()).as_bytes()) {
            return wrong(format!("`{}` cannot be written: {error}", path.display()));
        }
    }
    if merge.keep {
        let kept = place_here(arguments).ok_or_else(|| "no history is kept here".to_owned()).and_then(|path| {
            let mut history = History::open(&path).map_err(|error| error.to_string())?;
            history.keep(&joined).map_err(|error| error.to_string())
        });
        if let Err(why) = kept {
            return wrong(format!("the joined run is not in the history: {why}"));
        }
    }
    match merge.format {
        Plain::Text => print(&text(&joined)),
        _ => print(&format!("{}\n", joined.render())),
    }
    exit_of(joined.exit)
}

fn read(path: &Path) -> Result<Document, String> {
    let name = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("`{name}` cannot be read: {error}"))?;
    let document: Document = serde_json::from_str(&text).map_err(|error| {
        format!("`{name}` is not a whole document of a run: {error}\nhint: make it with `--format json >FILE`, and let the run end")
    })?;
    let major = |schema: &str| schema.split('.').next().map(str::to_owned);
    if major(&document.schema) != major(SCHEMA) {
        return Err(format!("`{name}` is of schema {}, this soc-provision reads {SCHEMA}", printable(&document.schema)));
    }
    Ok(document)
}

/// One document of several: refuses what is not the same work, or has a host twice.
fn join(documents: Vec<(PathBuf, Document)>) -> Result<Document, String> {
    let mut documents = documents.into_iter();
    let Some((first_path, mut joined)) = documents.next() else { return Err("nothing to join".to_owned()) };
    let mut ids = vec![joined.run.run.clone()];
    let mut shards: Vec<String> = joined.run.shard.take().into_iter().collect();
    for (path, document) in documents {
        let different = |what: &str| {
            format!("`{}` is of another {what} than `{}`: they are not parts of one run", path.display(), first_path.display())
        };
        if (document.run.command.as_str(), document.run.playbook.as_str()) != (joined.run.command.as_str(), joined.run.playbook.as_str()) {
            return Err(different("command or playbook"));
        }
        if document.run.project != joined.run.project {
            return Err(different("state of the project's files"));
        }
        if let Some(host) = document.hosts.keys().find(|host| joined.hosts.contains_key(*host)) {
            return Err(format!("host `{}` is in `{}` and in an earlier file", printable(host), path.display()));
        }
        ids.push(document.run.run.clone());
        shards.extend(document.run.shard.clone());
        joined.run.started = joined.run.started.min(document.run.started);
        joined.run.partial |= document.run.partial;
        joined.run.hosts.extend(document.run.hosts);
        joined.warnings.extend(document.warnings);
        joined.hosts.extend(document.hosts);
        joined.seconds = joined.seconds.max(document.seconds);
        let rank = |code: u8| WORST.iter().position(|other| *other == code).unwrap_or(0);
        if rank(document.exit) < rank(joined.exit) {
            joined.exit = document.exit;
        }
    }
    ids.sort();
    joined.run.run = format!("{}-joined{}", ids[0], &crate::secret::sha256(ids.join(" ").as_bytes())[..6]);
    if let Some(missing) = missing(&shards) {
        let text = format!("parts are missing: {missing}");
        complain(&format!("warning: {text}"));
        joined.warnings.push(text);
    }
    Ok(joined)
}

/// Which parts of `K/N` are not there.
fn missing(shards: &[String]) -> Option<String> {
    let parse = |shard: &String| shard.split_once('/').and_then(|(part, of)| Some((part.parse::<u64>().ok()?, of.parse::<u64>().ok()?)));
    let have: Vec<(u64, u64)> = shards.iter().filter_map(parse).collect();
    let of = have.first()?.1.min(10_000);
    let missing: Vec<String> = (1..=of).filter(|part| !have.contains(&(*part, of))).map(|part| format!("{part}/{of}")).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

fn text(document: &Document) -> String {
    let mut summary = Summary::default();
    for (name, host) in &document.hosts {
        summary.event(&Event { at_ms: 0, host: Some(name.clone()), kind: EventKind::HostFinished(host.report.clone()) });
    }
    let mut out = String::new();
    for found in findings::findings(document).iter().filter(|found| found.state.is_bad()) {
        out.push_str(&format!("{}: [{}] {}: {}\n", found.state.word(), printable(&found.host), printable(&found.resource), found.summary));
    }
    for (name, host) in &document.hosts {
        if let Some(failure) = &host.report.failure {
            out.push_str(&format!("fatal: [{}]: {}\n", printable(name), findings::bounded(&findings::failure_line(failure))));
        }
    }
    out + &summary.render(crate::report::colour_on_stdout(), false)
}

fn exit_of(code: u8) -> Exit {
    let all = [Exit::Fine, Exit::Usage, Exit::Drift, Exit::Unreachable, Exit::Failed, Exit::Reverted, Exit::Interrupted, Exit::Bug];
    all.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Bug)
}
