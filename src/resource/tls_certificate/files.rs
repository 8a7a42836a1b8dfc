//! Certificates whose files are ours to write: issued by the project's authority, or given.

use super::{DAY, clock, date, now};
use crate::facts::Facts;
use crate::resource::interview::secret_record;
use crate::resource::managed::{ManagedFile, remove_file};
use crate::resource::observe::{Question, View};
use crate::resource::plan::{Change, Effect, Plan, Step, Undecided};
use crate::resource::{Claim, Resource, ResourceId, Severity};
use crate::secret::SecretName;
use crate::secret::certificate::{Certificate, Request, read};
use crate::shell::Script;

/// Issued by an authority that the project keeps.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) key: ManagedFile,
    pub(super) chain: ManagedFile,
    pub(super) trust: ManagedFile,
    pub(super) authority: SecretName,
    pub(super) request: Request,
    pub(super) renew_before: u32,
    pub(super) wanted: bool,
}

/// Given by the project.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) key: ManagedFile,
    pub(super) chain: ManagedFile,
    pub(super) renew_before: u32,
    pub(super) wanted: bool,
}

fn questions(files: &[&ManagedFile], chain: &ManagedFile) -> Vec<Question> {
    let mut questions: Vec<Question> = files.iter().flat_map(|file| file.questions()).collect();
    questions.extend([Question::Content(chain.path.clone()), clock()]);
    questions
}

/// The certificate that the host has.
fn on_host(view: &View<'_>, chain: &ManagedFile) -> Result<Option<Certificate>, Undecided> {
    let content = view.content(&chain.path)?;
    Ok(content.and_then(|bytes| std::str::from_utf8(bytes).ok()).and_then(|text| read(text).ok()))
}

fn removal(view: &View<'_>, files: &[&ManagedFile]) -> Result<Plan, Undecided> {
    files.iter().try_fold(Plan::in_sync(), |plan, file| Ok(plan.and(remove_file(view, &file.path)?)))
}

/// Changes of owner and mode, said of which file.
fn of_file(file: &ManagedFile, changes: Vec<Change>) -> impl Iterator<Item = Change> {
    changes.into_iter().map(move |change| Change { field: format!("{} {}", file.path, change.field), ..change })
}

impl Issued {
    fn files(&self) -> [&ManagedFile; 3] {
        [&self.key, &self.chain, &self.trust]
    }

    /// Why a new certificate is needed, as a change.
    fn reissue(&self, had: Option<&Certificate>, ends_soon: bool) -> Change {
        let Request { names, days } = &self.request;
        let new = format!("{}, for {days} days, by `{}`", names.join(", "), self.authority);
        match had {
            None => Change::add("certificate", new),
            Some(had) if ends_soon => Change::of("certificate", format!("ends on {}", date(had.not_after)), new),
            Some(had) if had.names != *names => Change::of("certificate", had.names.join(", "), new),
            Some(_) => Change::of("certificate", "not as it was issued, or issued otherwise", new),
        }
    }

    /// Key and certificate go together. The certificate's record goes first: if the host dies in
    /// between, the next run knows that they may not fit and issues them again.
    fn write(&self, view: &View<'_>) -> Result<Step, Undecided> {
        let mut script = Script::sh("rm -f -- {}\n", &[&secret_record(&self.chain.path)]);
        for file in self.files() {
            script = script.then("(\n", &[]).append(file.rewrite(view)?).then("\n) || exit $?\n", &[]);
        }
        Ok(Step::new(format!("write {} and {}", self.key.path, self.chain.path), script))
    }
}

impl Resource for Issued {
    fn id(&self) -> ResourceId {
        ResourceId::new("tls_certificate", &self.chain.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        questions(&self.files(), &self.chain)
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !self.wanted {
            return removal(view, &self.files());
        }
        if view.digests.get(&self.authority).is_none() {
            return Err(Undecided::Refused(format!(
                "there is no secret `{0}`, which should hold the certificate authority: make one with `soc-provision secrets ca {0}`",
                self.authority
            )));
        }
        let had = on_host(view, &self.chain)?;
        let ends_soon = match &had {
            Some(had) => had.not_after - now(view)? < i64::from(self.renew_before) * DAY,
            None => false,
        };
        let mut plan = Plan::default();
        let mut steps = Vec::new();
        let mut reissue = ends_soon;
        for file in self.files() {
            let own = file.plan(view)?;
            let (content, attributes): (Vec<_>, Vec<_>) =
                own.changes.into_iter().partition(|change| matches!(change.field.as_str(), "content" | "type"));
            reissue |= !content.is_empty();
            let exists = view.path(&file.path)?.is_some();
            plan.changes.extend(of_file(file, attributes).filter(|_| exists));
            steps.extend(own.steps);
        }
        if reissue {
            plan.changes.insert(0, self.reissue(had.as_ref(), ends_soon));
            steps = vec![self.write(view)?];
        }
        if !plan.changes.is_empty() {
            plan.steps = steps;
            plan.effects = self.files().iter().map(|file| Effect::Path(file.path.clone())).collect();
        }
        Ok(plan)
    }

    fn secrets(&self) -> Vec<SecretName> {
        if self.wanted { self.files().iter().flat_map(|file| file.body.secrets()).collect() } else { Vec::new() }
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        let files = self.files();
        files.iter().filter(|_| self.wanted).map(|file| Claim::Path(file.path.clone())).collect()
    }
}

impl Given {
    fn files(&self) -> [&ManagedFile; 2] {
        [&self.key, &self.chain]
    }

    /// What the project gives, if it can be read without a key; else what the host has of it.
    fn certificate(&self, view: &View<'_>) -> Result<Option<Certificate>, Undecided> {
        match &self.chain.body {
            crate::resource::managed::Body::Text(text) if text.secrets().is_empty() => {
                Ok(text.as_plain().and_then(|text| read(&text).ok()))
            }
            _ => on_host(view, &self.chain),
        }
    }
}

impl Resource for Given {
    fn id(&self) -> ResourceId {
        ResourceId::new("tls_certificate", &self.chain.path)
    }

    fn questions(&self, _: &Facts) -> Vec<Question> {
        questions(&self.files(), &self.chain)
    }

    fn plan(&self, view: &View<'_>) -> Result<Plan, Undecided> {
        if !self.wanted {
            return removal(view, &self.files());
        }
        let mut plan = Plan::default();
        for file in self.files() {
            let own = file.plan(view)?;
            plan.changes.extend(of_file(file, own.changes));
            plan.steps.extend(own.steps);
            plan.effects.extend(own.effects);
        }
        let Some(certificate) = self.certificate(view)? else { return Ok(plan) };
        let left = certificate.not_after - now(view)?;
        if left <= 0 {
            return Err(Undecided::Refused(format!("the given certificate ended on {}: give a new one", date(certificate.not_after))));
        }
        if left < i64::from(self.renew_before) * DAY {
            return Ok(plan.note(format!("the given certificate ends on {}: give a new one", date(certificate.not_after))));
        }
        Ok(plan)
    }

    fn secrets(&self) -> Vec<SecretName> {
        if self.wanted { self.files().iter().flat_map(|file| file.body.secrets()).collect() } else { Vec::new() }
    }

    fn severity(&self) -> Severity {
        Severity::Security
    }

    fn claims(&self) -> Vec<Claim> {
        let files = self.files();
        files.iter().filter(|_| self.wanted).map(|file| Claim::Path(file.path.clone())).collect()
    }
}
