//! The work on the host: choose containers, take what goes away first, contain, take the rest,
//! and sign it off. What was had is kept, whatever fails afterwards.

use std::io::Write as _;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::archive::Writer;
use super::manifest::{Contained, FORMAT, Manifest, Missing, Part as Entry, SignedOff, now};
use super::parts::{self, Part, Target};
use super::{Order, Scope, contain};
use crate::diagnostic::{Failure, FailureClass, nearest, printable};
use crate::engine::apply::Walk;
use crate::engine::host::HostRun;
use crate::engine::operate::Operation;
use crate::event::Outcome;
use crate::project::vault::RECIPIENTS;
use crate::resource::Question;
use crate::resource::compose::contained::Mark;
use crate::resource::observe::Answer;
use crate::transport::{Download, DownloadError};

/// How long a host may print nothing: `docker export` and `tar` think before they begin.
const IDLE: Duration = Duration::from_secs(300);

impl Operation for Order {
    fn run<'a>(&'a self, host: &'a mut HostRun) -> Walk<'a> {
        Box::pin(async move {
            let targets = self.targets(host).await?;
            let marks = contain::marks(host).await?;
            if self.release { self.release(host, &targets, &marks).await } else { self.capture(host, targets, marks).await }
        })
    }
}

/// What was had so far.
struct Case {
    writer: Writer,
    manifest: Manifest,
    download: Option<Download>,
}

impl Order {
    fn tell(&self, line: impl Into<String>) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }

    /// Notes what could not be had before there was a manifest.
    fn lacks(&self, name: &str, why: String) {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner).push(Missing { name: name.to_owned(), why });
    }

    fn is_incomplete(&self) {
        *self.incomplete.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// The containers that are meant.
    async fn targets(&self, host: &mut HostRun) -> Result<Vec<Target>, Failure> {
        let answers = host.ask(&[Question::Containers]).await?;
        let all: Vec<Target> = match answers.get(&Question::Containers) {
            Some(Answer::Json(Some(list))) => list.as_array().into_iter().flatten().map(Target::read).collect(),
            Some(Answer::Failed(why)) if self.scope != Scope::All => {
                return Err(Failure::new(FailureClass::MissingTool, "Docker on the host does not answer").because(printable(why)));
            }
            Some(Answer::Failed(why)) => {
                self.lacks("containers", format!("Docker on the host does not answer: {}", printable(why)));
                Vec::new()
            }
            _ => Vec::new(),
        };
        let names = || all.iter().map(|target| printable(&target.name)).collect::<Vec<_>>().join(", ");
        let unknown = |what: String, near: Option<String>| {
            let failure = Failure::new(FailureClass::Refused, what);
            failure.hint(near.map_or_else(|| format!("containers on the host: {}", names()), |near| format!("did you mean `{near}`?")))
        };
        match &self.scope {
            Scope::All => Ok(all),
            Scope::Stack(stack) => {
                let mine: Vec<Target> = all.iter().filter(|target| target.project == *stack).cloned().collect();
                let near = nearest(stack, all.iter().map(|target| target.project.as_str())).map(printable);
                if mine.is_empty() && !self.release {
                    Err(unknown(format!("no container of a stack `{stack}` is on the host"), near))
                } else {
                    Ok(mine)
                }
            }
            Scope::Containers(wanted) => {
                let mut out = Vec::new();
                for name in wanted {
                    let is = |target: &&Target| target.name == *name || (name.len() >= 12 && target.id.starts_with(name.as_str()));
                    match all.iter().find(is) {
                        Some(target) => out.push(target.clone()),
                        None if self.release => {}
                        None => {
                            let near = nearest(name, all.iter().map(|target| target.name.as_str())).map(printable);
                            return Err(unknown(format!("no container `{name}` is on the host"), near));
                        }
                    }
                }
                Ok(out)
            }
        }
    }

    /// The marks that are meant: of containers that are there, and of those that are gone.
    fn marked(&self, marks: &[Mark]) -> Vec<Mark> {
        let meant = |mark: &&Mark| match &self.scope {
            Scope::All => false,
            Scope::Stack(stack) => mark.project == *stack,
            Scope::Containers(names) => {
                names.iter().any(|name| mark.name == *name || (name.len() >= 12 && mark.id.starts_with(name.as_str())))
            }
        };
        marks.iter().filter(meant).cloned().collect()
    }

    async fn release(&self, host: &mut HostRun, targets: &[Target], marks: &[Mark]) -> Result<(), Failure> {
        let since = Instant::now();
        let marked = self.marked(marks);
        if marked.is_empty() && !targets.is_empty() {
            for target in targets {
                self.tell(format!("released: {} was not contained; nothing was touched", target.name));
            }
            host.report("release", Outcome::Ok, since);
            return Ok(());
        }
        if marked.is_empty() {
            let what = match &self.scope {
                Scope::Containers(names) if targets.is_empty() => {
                    format!("no container `{}` is on the host, and none is contained", names.join("`, `"))
                }
                _ => "nothing of that is contained on the host".to_owned(),
            };
            let names: Vec<String> = marks.iter().map(|mark| printable(&mark.name)).collect();
            let hint =
                if names.is_empty() { "nothing on the host is contained".to_owned() } else { format!("contained: {}", names.join(", ")) };
            return Err(Failure::new(FailureClass::Refused, what).hint(hint));
        }
        for mark in marked {
            let said = contain::run(host, &format!("releasing {}", mark.name), contain::release(&mark)).await?;
            let networks: Vec<&str> = mark.networks.iter().map(|network| network.name.as_str()).collect();
            self.tell(if said.contains("gone") {
                format!("released: {} is gone from the host; the mark is removed", mark.name)
            } else {
                format!("released: {} is on {} again; it was contained {}", mark.name, networks.join(", "), mark.by())
            });
            host.report(format!("release {}", mark.name), Outcome::Changed, since);
        }
        Ok(())
    }

    async fn capture(&self, host: &mut HostRun, targets: Vec<Target>, marks: Vec<Mark>) -> Result<(), Failure> {
        if self.contain {
            let obstacles: Vec<String> = targets.iter().filter_map(contain::obstacle).collect();
            if !obstacles.is_empty() {
                let mut failure = Failure::new(FailureClass::Refused, "nothing was touched: not every container can be contained");
                failure.causes = obstacles;
                return Err(failure);
            }
        }
        let since = Instant::now();
        let local = |why: String| Failure::new(FailureClass::StepFailed, why);
        let recipients_file = self.store.dir().join(RECIPIENTS);
        let writer = Writer::create(&self.output, self.store.recipients(), &recipients_file).map_err(local)?;
        let mut case = Case { writer, manifest: self.manifest(host), download: None };
        let taken = self.take_all(host, &mut case, &targets, &marks).await;
        case.manifest.complete =
            taken.is_ok() && case.manifest.missing.is_empty() && case.manifest.parts.iter().all(|part| part.cut.is_none());
        case.manifest.signed_off.finished = now();
        let text = serde_json::to_vec_pretty(&case.manifest).unwrap_or_default();
        case.writer.add("manifest.json", &text).map_err(|error| local(error.to_string()))?;
        if let Some(download) = case.download.take() {
            download.close().await;
        }
        let path = case.writer.finish().map_err(local)?;
        let count = self.store.recipients().iter().count();
        let bytes: u64 = case.manifest.parts.iter().map(|part| part.bytes).sum();
        self.tell(format!("captured: {} ({} parts, {bytes} bytes; for {count} recipients)", path.display(), case.manifest.parts.len()));
        self.tell(format!("manifest: sha256 {}", crate::secret::sha256(&text)));
        for missing in &case.manifest.missing {
            self.tell(format!("missing: {}: {}", missing.name, missing.why));
        }
        for part in case.manifest.parts.iter().filter(|part| part.cut.is_some()) {
            self.tell(format!("not whole: {}: {}", part.name, part.cut.clone().unwrap_or_default()));
        }
        if !case.manifest.complete {
            self.is_incomplete();
        }
        host.report(format!("evidence of {}", case.manifest.scope), Outcome::Ok, since);
        taken
    }

    fn manifest(&self, host: &HostRun) -> Manifest {
        let info = host.run_info();
        let fact = |name: &str| printable(host.facts.text(name));
        Manifest {
            format: FORMAT.to_owned(),
            host: self.host.clone(),
            hostname: fact("ansible_fqdn"),
            machine_id: fact("ansible_machine_id"),
            boot_id: printable(host.facts.boot_id()),
            scope: match &self.scope {
                Scope::All => "the host and all of its containers".to_owned(),
                Scope::Stack(stack) => format!("the host and the containers of stack {stack}"),
                Scope::Containers(names) => format!("the host and container {}", names.join(", ")),
            },
            reason: self.reason.clone(),
            signed_off: SignedOff {
                who: info.who.clone(),
                from: info.from.clone(),
                run: info.run.clone(),
                tool: concat!("soc-provision ", env!("CARGO_PKG_VERSION")).to_owned(),
                revision: info.revision.clone().unwrap_or_default(),
                started: now(),
                finished: String::new(),
            },
            missing: self.lacking.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            ..Manifest::default()
        }
    }

    /// Everything, in order of how soon it is gone.
    async fn take_all(&self, host: &mut HostRun, case: &mut Case, targets: &[Target], marks: &[Mark]) -> Result<(), Failure> {
        let mut all = parts::host(&self.since);
        let mut volumes = self.named_volumes.clone();
        for target in targets {
            all.extend(parts::container(target, self.export));
            if self.volumes {
                volumes.extend(target.volumes.iter().cloned());
            }
        }
        volumes.sort();
        volumes.dedup();
        all.extend(volumes.iter().map(|name| parts::volume(name)));
        let (first, rest): (Vec<Part>, Vec<Part>) = all.into_iter().partition(|part| part.volatile);
        for part in first {
            self.take(host, case, part).await?;
        }
        self.contain_all(host, case, targets, marks).await?;
        for part in rest {
            self.take(host, case, part).await?;
        }
        self.facts(host, case)
    }

    /// What the controller learnt of the host before.
    fn facts(&self, host: &HostRun, case: &mut Case) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(&serde_json::Value::from(host.facts.vars().clone())).unwrap_or_default();
        let local = |error: std::io::Error| {
            Failure::new(FailureClass::StepFailed, format!("`{}` cannot be written: {error}", self.output.display()))
        };
        case.writer.add("host/facts.json", &text).map_err(local)?;
        case.manifest.parts.push(Entry {
            name: "host/facts.json".to_owned(),
            what: "facts as soc-provision gathered them".to_owned(),
            bytes: text.len() as u64,
            sha256: crate::secret::sha256(&text),
            started: case.manifest.signed_off.started.clone(),
            finished: now(),
            ..Entry::default()
        });
        Ok(())
    }

    async fn contain_all(&self, host: &mut HostRun, case: &mut Case, targets: &[Target], marks: &[Mark]) -> Result<(), Failure> {
        let since = Instant::now();
        let mut failed = None;
        for target in targets {
            let earlier = marks.iter().find(|mark| mark.id == target.id);
            if earlier.is_none() && !self.contain {
                continue;
            }
            let info = host.run_info();
            let mark = earlier.cloned().unwrap_or_else(|| contain::mark(target, &info.who, &info.from, &self.reason));
            if let Some(earlier) = earlier {
                self.tell(format!("contained: {} was contained already {}", earlier.name, earlier.by()));
            } else {
                match contain::run(host, &format!("containing {}", mark.name), contain::contain(&mark)).await {
                    Ok(_) => {
                        let networks: Vec<&str> = mark.networks.iter().map(|network| network.name.as_str()).collect();
                        self.tell(format!("contained: {} is off {} and runs on", mark.name, networks.join(", ")));
                        host.report(format!("contain {}", mark.name), Outcome::Changed, since);
                    }
                    Err(failure) => {
                        failed = failed.or(Some(failure));
                        continue;
                    }
                }
            }
            case.manifest.contained.push(Contained {
                container: mark.name.clone(),
                id: mark.id.clone(),
                by: mark.by(),
                now: earlier.is_none(),
                networks: mark.networks.iter().map(|network| network.name.clone()).collect(),
            });
        }
        failed.map_or(Ok(()), Err)
    }

    /// Takes one part. Only a lost host or a full disk here ends the capture.
    async fn take(&self, host: &mut HostRun, case: &mut Case, part: Part) -> Result<(), Failure> {
        if host.interrupted() {
            return Err(Failure::new(FailureClass::Interrupted, "interrupted; what was taken so far is in the archive"));
        }
        host.doing(format!("taking {}", part.name));
        let full = |error: std::io::Error| {
            Failure::new(FailureClass::StepFailed, format!("`{}` cannot be written: {error}", self.output.display()))
        };
        if case.download.is_none() {
            case.download = Some(host.session()?.open_download().await?);
        }
        let Some(mut download) = case.download.take() else { return Ok(()) };
        let mut spool = case.writer.spool().map_err(full)?;
        let mut hash = sha2::Sha256::default();
        let started = now();
        let fetched = download
            .fetch(&part.script, self.limit, IDLE, &mut |bytes| {
                sha2::Digest::update(&mut hash, bytes);
                spool.write_all(bytes)
            })
            .await;
        let mut entry = Entry { name: part.name.clone(), what: part.what.to_owned(), started, finished: now(), ..Entry::default() };
        match fetched {
            Ok(received) => {
                case.download = Some(download);
                entry.status = Some(received.status);
                entry.said.clone_from(&received.stderr);
                if received.status != 0 && part.needed {
                    let why = format!("ended with status {}: {}", received.status, received.stderr.lines().last().unwrap_or_default());
                    if received.bytes == 0 {
                        case.manifest.missing.push(Missing { name: part.name, why });
                        return Ok(());
                    }
                    entry.cut = Some(why);
                }
            }
            Err(DownloadError::Sink(error)) => return Err(full(error)),
            Err(error @ DownloadError::Lost(_)) => {
                case.manifest.missing.push(Missing { name: part.name, why: error.to_string() });
                return Err(Failure::new(FailureClass::Tcp, "the connection was lost; what was taken so far is in the archive")
                    .because(printable(&error.to_string())));
            }
            Err(error) => entry.cut = Some(printable(&error.to_string())),
        }
        entry.bytes = spool.len();
        entry.sha256 = crate::secret::hex(&sha2::Digest::finalize(hash));
        case.writer.add_spool(&entry.name, spool).map_err(full)?;
        case.manifest.parts.push(entry);
        Ok(())
    }
}
