//! The `tls_certificate` kind: a private key and its certificate on the host that serves with them.
//!
//! It owns `NAME.key`, `NAME.crt` and, of an internal authority, `NAME-ca.crt` in its directory; and
//! when they must be replaced. Three issuers: `internal` (an authority that the project keeps among
//! its secrets: key and certificate are made for this host alone, when it needs them), `given` (from
//! the project), and `acme`, where the front gets its own and only its state file is looked at. It
//! leaves alone who reads the files: that is what `notify` is for.

mod acme;
mod files;

use std::net::IpAddr;

use crate::resource::argument::{Account, FileMode, Presence, Words, absolute, check_name, octal};
use crate::resource::managed::{Body, ManagedFile};
use crate::resource::observe::{Question, View};
use crate::resource::plan::Undecided;
use crate::resource::{BuildContext, BuildError, Kind, Resource};
use crate::secret::certificate::{Part, Request, read};
use crate::secret::{SecretName, Text};
use crate::shell::Script;

/// A certificate with its key, renewed before it ends.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsCertificate {
    /// What it is called: the files are `NAME.key`, `NAME.crt` (with its chain) and, of an
    /// internal authority, `NAME-ca.crt`.
    name: String,
    /// DNS names and addresses by which clients reach the service; the first is the subject.
    names: Words,
    /// `internal`: by the project's own authority. `given`: `certificate` and `key` are. `acme`:
    /// the front asks for it itself, and its `state_file` is looked at.
    #[serde(default)]
    issuer: Issuer,
    /// With `internal`: the secret that holds the authority, as `soc-provision secrets ca` makes it.
    #[serde(default = "authority")]
    authority: String,
    /// With `internal`: for how many days a certificate is good.
    #[serde(default = "days")]
    days: u32,
    /// A certificate is replaced (or, if it is not ours to replace, told of) so many days before
    /// it ends.
    #[serde(default = "renew_before")]
    renew_before: u32,
    /// Where the files are; made if need be.
    #[serde(default = "directory")]
    directory: String,
    /// Owner of the key: a name or a number, which may be one that exists only inside a container.
    #[serde(default = "Account::root")]
    owner: Account,
    /// Group of the key: a name or a number.
    #[serde(default = "Account::root")]
    group: Account,
    /// Permission bits of the key, in quotes: `"0400"`.
    #[serde(default = "mode")]
    mode: FileMode,
    /// With `given`: the certificate and its chain, in PEM.
    #[schemars(with = "Option<String>")]
    certificate: Option<Text>,
    /// With `given`: a file of the role, instead of `certificate`.
    certificate_src: Option<String>,
    /// With `given`: the private key, which must be a secret: `{{secret "web/key"}}`.
    #[schemars(with = "Option<String>")]
    key: Option<Text>,
    /// With `acme`: the front's state, as Traefik keeps it (`acme.json`).
    state_file: Option<String>,
    /// `absent` removes key, certificate and, of an internal authority, its certificate; not with
    /// `acme`, whose state is the front's.
    #[serde(default)]
    state: Presence,
}

/// Who issues the certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Issuer {
    #[default]
    Internal,
    Given,
    Acme,
}

fn authority() -> String {
    "soc-ca".to_owned()
}

fn days() -> u32 {
    397
}

fn renew_before() -> u32 {
    30
}

fn directory() -> String {
    "/etc/soc-provision/tls".to_owned()
}

fn mode() -> FileMode {
    FileMode(0o400)
}

impl Kind for TlsCertificate {
    const NAME: &'static str = "tls_certificate";
    const EXAMPLE: &'static str = "tls_certificate:\n  name: front\n  names: [soc.example.internal, 10.0.0.5]\n  owner: \"1000\"\n";
    const SECRET_FIELDS: &'static [&'static str] = &["certificate", "key"];

    fn build(self, context: &BuildContext<'_>) -> Result<Vec<Box<dyn Resource>>, BuildError> {
        check_name("name", "certificate's name", &self.name, "-_.")?;
        let names = self.names()?;
        self.check_fields()?;
        if self.mode.0 & !0o770 != 0 {
            let text = format!("`{}` lets everybody at the key, or sets more than permissions", octal(self.mode.0));
            return Err(BuildError::field("mode", text).hint("give the key to its consumer with `owner` or `group`"));
        }
        let wanted = self.state == Presence::Present;
        let directory = absolute("directory", &self.directory)?;
        let path = |end: &str| format!("{directory}/{}{end}", self.name);
        let private = |body| ManagedFile {
            mode: self.mode.0,
            owner: self.owner.clone(),
            group: Some(self.group.clone()),
            make_parent: true,
            ..ManagedFile::new(path(".key"), body)
        };
        let public = |end: &str, body| ManagedFile { make_parent: true, mode: 0o444, ..ManagedFile::new(path(end), body) };
        let text = |text: Text| Body::Text(text);
        Ok(vec![match self.issuer {
            Issuer::Internal => {
                let authority = SecretName::parse(&self.authority).map_err(|message| BuildError::field("authority", message))?;
                if self.days <= self.renew_before || self.days > 3650 {
                    let text = format!("{} days must be more than `renew_before` ({}) and at most 3650", self.days, self.renew_before);
                    return Err(BuildError::field("days", text));
                }
                let request = Request { names, days: self.days };
                let part = |part| text(Text::secret(request.part(&authority, part)));
                let (key, chain, trust) =
                    (private(part(Part::Key)), public(".crt", part(Part::Chain)), public("-ca.crt", part(Part::Authority)));
                Box::new(files::Issued { key, chain, trust, authority, request, renew_before: self.renew_before, wanted })
                    as Box<dyn Resource>
            }
            Issuer::Given => {
                let certificate = self.given_certificate(context)?;
                let key = self.given_key()?;
                if let Some(plain) = certificate.as_plain() {
                    let told = read(&plain).map_err(|reason| BuildError::field("certificate", format!("it {reason}")))?;
                    if let Some(missing) = names.iter().find(|name| !told.covers(name)) {
                        let text = format!("the certificate is not for `{missing}` but for {}", told.names.join(", "));
                        return Err(BuildError::field("names", text));
                    }
                }
                let (key, chain) = (private(text(key)), public(".crt", text(certificate)));
                Box::new(files::Given { key, chain, renew_before: self.renew_before, wanted })
            }
            Issuer::Acme => {
                let missing = || BuildError::field("state_file", "`state_file` is missing: where does the front keep what it got?");
                if !wanted {
                    let text = "what the front keeps in its `state_file` is its own, and only looked at";
                    return Err(BuildError::field("state", text).hint("take the task out; the file goes with the front's stack"));
                }
                let file = absolute("state_file", self.state_file.as_ref().ok_or_else(missing)?)?;
                if let Some(address) = names.iter().find(|name| name.parse::<IpAddr>().is_ok()) {
                    return Err(BuildError::field("names", format!("`{address}` is an address, for which nobody issues by ACME")));
                }
                Box::new(acme::Acme { name: self.name, names, file, renew_before: self.renew_before })
            }
        }])
    }
}

impl TlsCertificate {
    /// The names, checked, addresses as certificates spell them.
    fn names(&self) -> Result<Vec<String>, BuildError> {
        let names = self.names.split();
        if names.is_empty() {
            return Err(BuildError::field("names", "names nothing that the certificate is for"));
        }
        let label = |label: &str| {
            !label.is_empty() && label.len() <= 63 && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
        };
        let check = |name: String| {
            if let Ok(address) = name.parse::<IpAddr>() {
                return Ok(address.to_string());
            }
            let rest = name.strip_prefix("*.").unwrap_or(&name);
            if name.len() <= 253 && rest.split('.').all(label) {
                Ok(name.to_ascii_lowercase())
            } else {
                Err(BuildError::field("names", format!("`{}` is neither a DNS name nor an address", name.escape_debug())))
            }
        };
        let mut out: Vec<String> = Vec::new();
        for name in names {
            let name = check(name)?;
            if !out.contains(&name) {
                out.push(name);
            }
        }
        Ok(out)
    }

    /// Refuses what another issuer takes.
    fn check_fields(&self) -> Result<(), BuildError> {
        let given = [
            ("certificate", self.certificate.is_some(), Issuer::Given),
            ("certificate_src", self.certificate_src.is_some(), Issuer::Given),
            ("key", self.key.is_some(), Issuer::Given),
            ("state_file", self.state_file.is_some(), Issuer::Acme),
        ];
        match given.iter().find(|(_, is_set, issuer)| *is_set && *issuer != self.issuer) {
            Some((field, _, issuer)) => {
                Err(BuildError::field(field, format!("`{field}` belongs to `issuer: {}`", format!("{issuer:?}").to_lowercase())))
            }
            None => Ok(()),
        }
    }

    fn given_certificate(&self, context: &BuildContext<'_>) -> Result<Text, BuildError> {
        match (&self.certificate, &self.certificate_src) {
            (Some(text), None) => Ok(text.clone()),
            (None, Some(name)) => {
                let bytes = context.sources.file(name).map_err(|message| BuildError::field("certificate_src", message))?;
                String::from_utf8(bytes)
                    .map(Text::plain)
                    .map_err(|_| BuildError::field("certificate_src", format!("`{name}` is not in PEM")))
            }
            _ => Err(BuildError::field("certificate", "give the certificate by either `certificate` or `certificate_src`")),
        }
    }

    fn given_key(&self) -> Result<Text, BuildError> {
        let key = self.key.clone().ok_or_else(|| BuildError::field("key", "`key` is missing: the certificate's private key"))?;
        if key.secrets().is_empty() {
            return Err(BuildError::field("key", "the private key is not a secret")
                .hint("store it with `soc-provision secrets set NAME --file KEY`, and write `key: '{{secret \"NAME\"}}'`"));
        }
        Ok(key)
    }
}

/// One day, in seconds.
const DAY: i64 = 86_400;

/// The host's clock, which is what its service will go by.
fn clock() -> Question {
    Question::Raw { key: "clock".to_owned(), script: Script::sh("date +%s\n", &[]) }
}

/// Seconds since the epoch, on the host.
fn now(view: &View<'_>) -> Result<i64, Undecided> {
    let said = view.raw(&clock())?.stdout.trim();
    said.parse().map_err(|_| Undecided::Unknown("the host does not say what time it is".to_owned()))
}

/// A point in time as a date, for people.
fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "?".to_owned(), |time| time.strftime("%Y-%m-%d").to_string())
}

#[cfg(test)]
mod tests;
