//! Tests of the controller's memory.

use super::*;
use crate::event::Outcome;
use crate::report::findings::testing::{document, task};

fn open() -> (tempfile::TempDir, History) {
    let dir = tempfile::tempdir().unwrap();
    let history = History::open(&dir.path().join("deep/history.db")).unwrap();
    (dir, history)
}

#[test]
fn a_run_comes_back_as_it_was_printed_and_the_file_is_ours_alone() {
    let (dir, mut history) = open();
    let mut document = document("20260101-000000-aaaaaa", 10, &[("h1", vec![task("base", "a", Outcome::WouldChange)])]);
    document.exit = 3;
    history.begin(&document.run).unwrap();
    let running = history.find("last", &Filter::default()).unwrap();
    assert_eq!(running.exit, None);
    history.keep(&document).unwrap();
    history.keep(&document).unwrap();
    let run = history.find("aaaaaa", &Filter::default()).unwrap();
    assert_eq!(history.document(&run).unwrap().render(), document.render());
    assert_eq!(run.states["drift"], 1);
    for name in std::fs::read_dir(dir.path().join("deep")).unwrap() {
        let mode = name.unwrap().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
    }
}

#[test]
fn since_when_goes_over_good_and_unreachable_nights() {
    let (_dir, mut history) = open();
    let night = |number: i64, outcome: Outcome| {
        let mut document = document(&format!("run-{number}"), number, &[("h1", vec![task("base", "a", outcome)])]);
        document.run.root = "/p".to_owned();
        document
    };
    history.keep(&night(1, Outcome::WouldChange)).unwrap();
    history.keep(&night(2, Outcome::Ok)).unwrap();
    history.keep(&night(3, Outcome::WouldChange)).unwrap();
    let mut dark = night(4, Outcome::Ok);
    let failure = crate::diagnostic::Failure::new(crate::diagnostic::FailureClass::Tcp, "no answer");
    dark.hosts.get_mut("h1").unwrap().tasks.clear();
    dark.hosts.get_mut("h1").unwrap().report.failure = Some((&failure).into());
    history.keep(&dark).unwrap();
    history.keep(&night(5, Outcome::WouldChange)).unwrap();
    let since = history.since("/p", "playbooks/p.yml").unwrap();
    assert_eq!(since[&("h1".to_owned(), "file[/etc/a]".to_owned())], 3);
    history.keep(&night(6, Outcome::Changed)).unwrap();
    assert!(history.since("/p", "p").unwrap().is_empty());
}

#[test]
fn writers_at_once_lose_nothing() {
    let (dir, history) = open();
    drop(history);
    let path = dir.path().join("deep/history.db");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || {
                let mut history = History::open(path).unwrap();
                for number in 0..5 {
                    let document = document(&format!("{writer}-{number}"), number, &[("h1", vec![task("r", "a", Outcome::Ok)])]);
                    history.begin(&document.run).unwrap();
                    history.keep(&document).unwrap();
                }
            });
        }
    });
    assert_eq!(History::open(&path).unwrap().runs(&Filter::default()).unwrap().len(), 40);
}

#[test]
fn pruning_takes_the_oldest_and_everything_of_them() {
    let (_dir, mut history) = open();
    for number in 0..10 {
        history.keep(&document(&format!("run-{number}"), number, &[("h1", vec![task("r", "a", Outcome::WouldChange)])])).unwrap();
    }
    assert_eq!(history.prune(Some(4), None, true).unwrap().len(), 6);
    assert_eq!(history.runs(&Filter::default()).unwrap().len(), 10);
    assert_eq!(history.prune(None, Some(2), false).unwrap(), ["run-1", "run-0"]);
    assert_eq!(history.prune(Some(4), None, false).unwrap().len(), 4);
    let left: i64 = history.db.query_row("SELECT count(*) FROM findings", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 4);
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("text");
    std::fs::write(&text, "not a database, but long enough to be looked at\n".repeat(100)).unwrap();
    let error = History::open(&text).err().unwrap().to_string();
    assert!(error.contains("damaged, or no history"), "{error}");
    assert!(std::fs::read_to_string(&text).unwrap().starts_with("not a database"));
    let other = dir.path().join("other.db");
    rusqlite::Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    assert!(History::open(&other).err().unwrap().to_string().contains("something else"));
    let newer = dir.path().join("newer.db");
    drop(History::open(&newer).unwrap());
    rusqlite::Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(History::open(&newer).err().unwrap().to_string().contains("newer soc-provision"));
    assert!(History::open(dir.path()).is_err());
    assert!(History::existing(&dir.path().join("none")).err().unwrap().to_string().contains("no history yet"));
}
