//! Logging in: which keys and passwords are tried, in what order, and what is said if none does.
//!
//! Named keys first, then the agent's, then the user's usual files, then the password. Nothing is
//! tried just to learn what the server takes: its first refusal says so.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use super::connection::Client;
use super::hop::Hop;
use super::keys::{self, Keys, Loaded};
use crate::diagnostic::{Failure, FailureClass, printable};

/// Why there is no login.
#[derive(Debug)]
pub(super) enum NoLogin {
    Failed(Failure),
    /// The server would take this key, which must be unlocked first: then it is worth another try.
    Locked(PathBuf),
    /// The server went away in the middle.
    Dropped,
}

/// Logs in.
///
/// # Errors
/// [`NoLogin`].
pub(super) async fn login(handle: &mut Handle<Client>, hop: &Hop, keys: &Keys) -> Result<(), NoLogin> {
    let mut login = Login { handle, hop, keys, agent: None, tried: Vec::new(), offered: Vec::new(), methods: None };
    if login.every_way().await? { Ok(()) } else { Err(NoLogin::Failed(login.failure())) }
}

struct Login<'a> {
    handle: &'a mut Handle<Client>,
    hop: &'a Hop,
    keys: &'a Keys,
    /// Opened when first needed, one for each connection: it is bound to it.
    agent: Option<Agent>,
    /// For the message.
    tried: Vec<String>,
    /// Public keys that were offered already.
    offered: Vec<PublicKey>,
    /// What the server still takes, once it has said so.
    methods: Option<MethodSet>,
}

struct Agent {
    client: AgentClient<UnixStream>,
    identities: Vec<AgentIdentity>,
}

impl Login<'_> {
    async fn every_way(&mut self) -> Result<bool, NoLogin> {
        let hop = self.hop;
        for file in &hop.named_keys {
            if self.by_file(file, true).await? {
                return Ok(true);
            }
        }
        if !hop.named_keys_only && self.by_agent().await? {
            return Ok(true);
        }
        for file in &hop.usual_keys {
            if self.by_file(file, false).await? {
                return Ok(true);
            }
        }
        Ok(self.by_password().await? || self.by_question().await?)
    }

    fn takes(&self, method: MethodKind) -> bool {
        self.methods.as_ref().is_none_or(|methods| methods.contains(&method))
    }

    async fn by_file(&mut self, file: &Path, named: bool) -> Result<bool, NoLogin> {
        if !self.takes(MethodKind::PublicKey) {
            return Ok(false);
        }
        match self.keys.load(file).await {
            Loaded::Key(key) => self.by_key(file, &key).await,
            Loaded::Locked(public) => self.by_locked(file, public).await,
            Loaded::Missing if named => Ok(self.note(format!("`{}`, which is not there", file.display()))),
            Loaded::Missing => Ok(false),
            Loaded::Unusable(why) => Ok(self.note(format!("`{}`, which {why}", file.display()))),
        }
    }

    /// Notes what did not open the door.
    fn note(&mut self, tried: String) -> bool {
        self.tried.push(tried);
        false
    }

    async fn by_key(&mut self, file: &Path, key: &Arc<PrivateKey>) -> Result<bool, NoLogin> {
        for certificate in keys::certificates(file, key.public_key(), &self.hop.certificates) {
            self.tried.push(format!("certificate `{}` of `{}`", printable(certificate.key_id()), file.display()));
            let result = self.handle.authenticate_openssh_cert(&self.hop.user, key.clone(), certificate).await;
            if self.judge(result)? {
                return Ok(true);
            }
        }
        if !self.offer(key.public_key()) {
            return Ok(false);
        }
        self.tried.push(format!("key `{}` ({})", file.display(), fingerprint(key.public_key())));
        let hash = self.hash(&key.algorithm()).await;
        let result = self.handle.authenticate_publickey(&self.hop.user, PrivateKeyWithHashAlg::new(key.clone(), hash)).await;
        self.judge(result)
    }

    /// An encrypted key: the agent may hold it. Else the server is asked whether it would take
    /// it, before anybody is asked for a passphrase.
    async fn by_locked(&mut self, file: &Path, public: Option<PublicKey>) -> Result<bool, NoLogin> {
        let Some(public) = public else { return Err(NoLogin::Locked(file.to_owned())) };
        if self.offered.iter().any(|key| key.key_data() == public.key_data()) {
            return Ok(false);
        }
        self.open_agent().await;
        let held = self.agent.iter().flat_map(|agent| &agent.identities);
        let held = held.filter(|identity| identity.public_key().key_data() == public.key_data()).cloned().collect::<Vec<_>>();
        for identity in held {
            if self.by_identity(&identity).await? {
                return Ok(true);
            }
        }
        if !self.offer(&public) {
            return Ok(false);
        }
        let hash = self.hash(&public.algorithm()).await;
        let mut signer = NeverSigns { asked: false };
        let result = self.handle.authenticate_publickey_with(&self.hop.user, public.clone(), hash, &mut signer).await;
        if signer.asked {
            return Err(NoLogin::Locked(file.to_owned()));
        }
        self.tried.push(format!("key `{}` ({}), which is encrypted", file.display(), fingerprint(&public)));
        self.judge(result.map_err(|_| russh::Error::Disconnect))
    }

    async fn by_agent(&mut self) -> Result<bool, NoLogin> {
        if !self.takes(MethodKind::PublicKey) {
            return Ok(false);
        }
        self.open_agent().await;
        let identities = self.agent.as_ref().map(|agent| agent.identities.clone()).unwrap_or_default();
        for identity in identities {
            if self.takes(MethodKind::PublicKey) && self.by_identity(&identity).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn by_identity(&mut self, identity: &AgentIdentity) -> Result<bool, NoLogin> {
        let public = identity.public_key().into_owned();
        let hash = self.hash(&public.algorithm()).await;
        let plain = matches!(identity, AgentIdentity::PublicKey { .. });
        if plain && !self.offer(&public) {
            return Ok(false);
        }
        let Some(agent) = &mut self.agent else { return Ok(false) };
        let what = if plain { "key" } else { "certificate" };
        self.tried.push(format!("the agent's {what} `{}` ({})", printable(identity.comment()), fingerprint(&public)));
        let result = match identity {
            AgentIdentity::PublicKey { .. } => {
                self.handle.authenticate_publickey_with(&self.hop.user, public, hash, &mut agent.client).await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                let certificate: Certificate = certificate.clone();
                self.handle.authenticate_certificate_with(&self.hop.user, certificate, hash, &mut agent.client).await
            }
        };
        match result {
            Ok(result) => self.judge(Ok(result)),
            Err(error) if self.handle.is_closed() => {
                tracing::debug!("agent: {error}");
                Err(NoLogin::Dropped)
            }
            Err(error) => Ok(self.note(format!("(the agent did not sign: {error})"))),
        }
    }

    async fn open_agent(&mut self) {
        if self.agent.is_some() {
            return;
        }
        let Some(path) = &self.hop.agent else { return };
        let opened = async {
            let mut client = AgentClient::connect_uds(path).await?;
            if let Some(binding) = self.handle.agent_session_binding() {
                // Agents that do not know the request say no, and work all the same.
                let _ = client.bind_session(binding, false).await;
            }
            let identities = client.request_identities().await?;
            Ok::<_, russh::keys::Error>(Agent { client, identities })
        };
        match opened.await {
            Ok(agent) => self.agent = Some(agent),
            Err(error) => {
                self.tried.push(format!("the agent at `{}`, which does not answer: {error}", path.display()));
            }
        }
    }

    async fn by_password(&mut self) -> Result<bool, NoLogin> {
        let Some(password) = &self.hop.password else { return Ok(false) };
        if !self.takes(MethodKind::Password) {
            return Ok(false);
        }
        self.tried.push("password".to_owned());
        let result = self.handle.authenticate_password(&self.hop.user, password.as_str()).await;
        self.judge(result)
    }

    /// Keyboard-interactive: the one hidden question is taken to be for the password. Anything
    /// else (a one-time code) cannot be answered.
    async fn by_question(&mut self) -> Result<bool, NoLogin> {
        let Some(password) = &self.hop.password else { return Ok(false) };
        if !self.takes(MethodKind::KeyboardInteractive) {
            return Ok(false);
        }
        self.tried.push("keyboard-interactive".to_owned());
        let mut reply = self.handle.authenticate_keyboard_interactive_start(&self.hop.user, None::<String>).await;
        let mut answered = false;
        loop {
            match reply {
                Ok(KeyboardInteractiveAuthResponse::Success) => return Ok(true),
                Ok(KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success }) => {
                    return self.judge(Ok(AuthResult::Failure { remaining_methods, partial_success }));
                }
                Ok(KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. }) => {
                    let hidden = prompts.len() == 1 && !prompts[0].echo && !answered;
                    if !hidden && !prompts.is_empty() {
                        let asked: Vec<_> = prompts.iter().map(|prompt| printable(prompt.prompt.trim())).collect();
                        return Ok(self.note(format!("(it asks for `{}`, which nobody can answer here)", asked.join("`, `"))));
                    }
                    answered |= hidden;
                    let answers = if hidden { vec![password.as_str().to_owned()] } else { Vec::new() };
                    reply = self.handle.authenticate_keyboard_interactive_respond(answers).await;
                }
                Err(_) => return Err(NoLogin::Dropped),
            }
        }
    }

    /// Notes that a key is offered; false if it was before.
    fn offer(&mut self, key: &PublicKey) -> bool {
        let new = self.takes(MethodKind::PublicKey) && !self.offered.iter().any(|old| old.key_data() == key.key_data());
        if new {
            self.offered.push(key.clone());
        }
        new
    }

    /// The hash for an RSA key: the best that the server says it knows, and never SHA-1 unasked.
    async fn hash(&self, algorithm: &Algorithm) -> Option<HashAlg> {
        if !matches!(algorithm, Algorithm::Rsa { .. }) {
            return None;
        }
        match self.handle.best_supported_rsa_hash().await {
            Ok(Some(Some(hash))) => Some(hash),
            _ if self.hop.legacy => None,
            _ => Some(HashAlg::Sha512),
        }
    }

    fn judge(&mut self, result: Result<AuthResult, russh::Error>) -> Result<bool, NoLogin> {
        match result {
            Ok(AuthResult::Success) => Ok(true),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                // On a lost session russh reports a failure too, with nothing remaining.
                if remaining_methods.is_empty() && self.handle.is_closed() {
                    return if self.tried.len() > 1 { Err(NoLogin::Failed(self.failure())) } else { Err(NoLogin::Dropped) };
                }
                if partial_success && let Some(last) = self.tried.last_mut() {
                    last.push_str(", which is accepted but not enough");
                }
                self.methods = Some(remaining_methods);
                Ok(false)
            }
            Err(error) => {
                tracing::debug!("login: {error}");
                Err(NoLogin::Dropped)
            }
        }
    }

    fn failure(&self) -> Failure {
        let hop = self.hop;
        let mut failure = Failure::new(FailureClass::Auth, format!("`{hop}` does not let us in"));
        if self.tried.is_empty() {
            failure.causes.push("there was no key and no password to try".to_owned());
        } else {
            failure.causes.push(format!("tried {}", self.tried.join("; ")));
        }
        if let Some(methods) = &self.methods {
            let names: Vec<&str> = methods.iter().map(Into::into).collect();
            failure.causes.push(format!("the server takes {}", names.join(", ")));
        } else if self.handle.is_closed() {
            failure.causes.push("the server closed the connection".to_owned());
        }
        let locked = self.tried.iter().any(|tried| tried.contains("is encrypted"));
        failure.hint(if locked {
            "add the encrypted key to the agent (`ssh-add`), or run where its passphrase can be asked for".to_owned()
        } else if self.tried.len() >= 5 {
            "name the right key with `--private-key` or `ansible_ssh_private_key_file`: servers give up after a few wrong ones".to_owned()
        } else {
            format!(
                "put the public key into `{}`'s ~/.ssh/authorized_keys on the host, or name another key (`--private-key`) or user (`-u`)",
                hop.user
            )
        })
    }
}

fn fingerprint(key: &PublicKey) -> String {
    format!("{} {}", key.algorithm(), key.fingerprint(HashAlg::Sha256))
}

/// Learns whether a server would take a key, and signs nothing.
struct NeverSigns {
    asked: bool,
}

/// No signature was made.
#[derive(Debug)]
struct Unsigned;

impl From<russh::SendError> for Unsigned {
    fn from(_: russh::SendError) -> Self {
        Self
    }
}

impl russh::Signer for NeverSigns {
    type Error = Unsigned;

    async fn auth_sign(&mut self, _: &AgentIdentity, _: Option<HashAlg>, _: Vec<u8>) -> Result<Vec<u8>, Unsigned> {
        self.asked = true;
        Err(Unsigned)
    }
}
