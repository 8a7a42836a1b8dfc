//! Certificates as far as everybody needs to know them: what is asked of an internal authority,
//! and what a certificate says of itself. Issuing is the vault's, laying down is the resource's.

use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::SecretName;

/// What a certificate is to be. Its text is the recipe in the names of what is issued.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Request {
    /// DNS names and addresses, the first of which is also the subject.
    pub names: Vec<String>,
    /// For how many days it is good.
    pub days: u32,
}

/// One of the three files that are issued together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The private key, in PEM.
    Key,
    /// The certificate and its authority's, in PEM.
    Chain,
    /// The authority's certificate alone.
    Authority,
}

impl Request {
    /// The name under which a part is issued by the authority that this secret holds.
    #[must_use]
    pub fn part(&self, authority: &SecretName, part: Part) -> SecretName {
        let what = match part {
            Part::Key => "key",
            Part::Chain => "certificate",
            Part::Authority => "authority",
        };
        let first = self.names.first().map_or("", String::as_str);
        authority.made(&format!("{what} of {first}"), &serde_json::to_string(&(part, self)).unwrap_or_default())
    }

    /// Reads a recipe.
    #[must_use]
    pub fn of_recipe(recipe: &str) -> Option<(Part, Self)> {
        serde_json::from_str(recipe).ok()
    }
}

/// What a certificate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// DNS names and addresses, in its own order.
    pub names: Vec<String>,
    /// Seconds since the epoch.
    pub not_after: i64,
    /// Whether it may sign others.
    pub is_authority: bool,
}

/// Reads the first certificate of a PEM text.
///
/// # Errors
/// A sentence without any of the text.
pub fn read(pem: &str) -> Result<Certificate, String> {
    let not_one = || "is no certificate in PEM (`-----BEGIN CERTIFICATE-----`)".to_owned();
    let block =
        Pem::iter_from_buffer(pem.as_bytes()).filter_map(Result::ok).find(|block| block.label == "CERTIFICATE").ok_or_else(not_one)?;
    let parsed = block.parse_x509().map_err(|_| not_one())?;
    let alternative = parsed.subject_alternative_name().map_err(|_| not_one())?;
    let names = alternative.iter().flat_map(|extension| &extension.value.general_names).filter_map(name_of).collect();
    Ok(Certificate { names, not_after: parsed.validity().not_after.timestamp(), is_authority: parsed.is_ca() })
}

fn name_of(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv4Addr::from(bytes).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|bytes| std::net::Ipv6Addr::from(bytes).to_string()),
            _ => None,
        },
        _ => None,
    }
}

impl Certificate {
    /// Whether it is good for a name: by itself, or by a wildcard for its first label.
    #[must_use]
    pub fn covers(&self, name: &str) -> bool {
        let wild = name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        self.names.iter().any(|own| own.eq_ignore_ascii_case(name) || wild.as_deref().is_some_and(|wild| own.eq_ignore_ascii_case(wild)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recipe_is_read_again_and_shown_as_words() {
        let request = Request { names: vec!["a.example".into(), "10.0.0.5".into()], days: 90 };
        let name = request.part(&SecretName::parse("soc-ca").unwrap(), Part::Key);
        assert_eq!(name.to_string(), "key of a.example by soc-ca");
        let (stored, recipe) = name.origin();
        assert_eq!((stored.as_str(), Request::of_recipe(recipe.unwrap())), ("soc-ca", Some((Part::Key, request))));
        assert_eq!(SecretName::parse("soc-ca").unwrap().origin().1, None);
    }

    #[test]
    fn a_wildcard_covers_one_label() {
        let certificate = Certificate { names: vec!["*.soc.example".into(), "10.0.0.5".into()], not_after: 0, is_authority: false };
        assert!(certificate.covers("a.soc.example") && certificate.covers("10.0.0.5"));
        assert!(!certificate.covers("soc.example") && !certificate.covers("a.b.soc.example"));
    }

    #[test]
    fn what_is_no_certificate_is_said_without_its_text() {
        assert!(!read("-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n").unwrap_err().contains("MIG"));
    }
}
