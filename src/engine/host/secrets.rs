//! Which secrets a host needs, which are masked in what it sends back, and when they are decrypted.

use super::HostRun;
use crate::diagnostic::{Failure, FailureClass};
use crate::engine::Mode;
use crate::engine::plan::Decision;
use crate::secret::SecretName;
use crate::shell::Script;
use crate::transport::Session;

impl HostRun {
    /// Gives a session what it fills into scripts, and what it masks in answers.
    pub(in crate::engine) fn share_secrets(&self, session: &Session) {
        session.set_vault(self.vault.clone(), self.masker.and(&self.vault.masker()));
    }

    /// Every secret that the host's program names; all of the project's for commands that look
    /// further than the program does (logs, evidence).
    pub(super) fn named_secrets(&self) -> Vec<SecretName> {
        if matches!(self.job.mode, Mode::Gather | Mode::Exec | Mode::Inspect | Mode::Operate) {
            return self.job.digests.names().cloned().collect();
        }
        self.program.tasks.iter().flat_map(|task| task.resources.iter().flat_map(|resource| resource.secrets())).collect()
    }

    /// From here on masks these secrets in whatever the host sends back: it may have them from an
    /// earlier run, and print them although this one changes nothing.
    pub(super) async fn mask(&mut self, mut names: Vec<SecretName>) -> Result<(), Failure> {
        // Of what is made of a secret anew each time nobody has the earlier value: it is the host's own.
        names.retain(|name| name.origin().1.is_none());
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        let job = self.job.clone();
        self.masker = tokio::task::spawn_blocking(move || (job.masker)(&names)).await.unwrap_or_default();
        let session = self.session()?;
        self.share_secrets(&session);
        Ok(())
    }

    /// Decrypts what this host's changes need, if anything, and hands it to the session.
    ///
    /// # Errors
    /// [`FailureClass::Project`] if a secret cannot be had.
    pub(in crate::engine) async fn unlock(&mut self) -> Result<(), Failure> {
        let mut names = Vec::new();
        for (index, plans) in &self.plans {
            for (resource, decision) in self.program.tasks[*index].resources.iter().zip(plans) {
                match decision {
                    Decision::Known(plan) => {
                        names.extend(plan.steps.iter().flat_map(|step| step.script.secrets()));
                        names.extend(plan.validate.iter().flat_map(Script::secrets));
                    }
                    Decision::After(_) => names.extend(resource.secrets()),
                    Decision::Unknown(_) | Decision::Refused(_) => {}
                }
            }
        }
        let handlers = self.program.plays.iter().flat_map(|play| &play.handlers);
        names
            .extend(handlers.flat_map(|handler| self.program.tasks[handler.task].resources.iter().flat_map(|resource| resource.secrets())));
        self.unlock_names(names).await
    }

    /// Decrypts secrets by name and hands them to the session.
    pub(in crate::engine) async fn unlock_names(&mut self, mut names: Vec<SecretName>) -> Result<(), Failure> {
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Ok(());
        }
        self.doing("decrypting secrets");
        let job = self.job.clone();
        let unlocked = tokio::task::spawn_blocking(move || (job.unlock)(&names)).await;
        let vault = unlocked.unwrap_or_else(|error| Err(error.to_string())).map_err(|why| {
            Failure::new(FailureClass::Project, "a secret that this host needs cannot be had; nothing was touched").because(why)
        })?;
        self.vault = vault;
        if self.masker.is_blind() {
            // Somebody gave a passphrase meanwhile.
            self.mask(self.named_secrets()).await?;
        }
        let session = self.session()?;
        self.share_secrets(&session);
        Ok(())
    }
}
