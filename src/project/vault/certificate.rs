//! The internal certificate authority: a secret that holds its key and its certificate, in PEM.
//! What it issues is made for one host when that host needs it, and is stored nowhere else.

use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use zeroize::Zeroizing;

use super::Store;
use super::error::VaultError;
use super::unlock::{Access, Opened};
use crate::secret::certificate::{self, Part, Request};
use crate::secret::{SecretName, Vault, login};

/// One day, in seconds.
const DAY: i64 = 86_400;
/// Longest common name that X.509 allows.
const COMMON_NAME: usize = 64;

/// What was issued together.
struct Issued {
    key: Zeroizing<String>,
    chain: String,
    authority: String,
}

impl Store {
    /// Issues what these names ask for and puts it into the vault: parts of one request fit
    /// together, and no other host gets the same.
    pub(super) fn issue(
        &self,
        names: &[SecretName],
        access: Access<'_>,
        opened: &mut Opened,
        vault: &mut Vault,
    ) -> Result<(), Vec<VaultError>> {
        let mut issued: Vec<(SecretName, Request, Issued)> = Vec::new();
        for name in names {
            let (authority, recipe) = name.origin();
            if recipe.and_then(login::user).is_some() {
                vault.insert(name.clone(), self.reveal_with(name, access, opened)?);
                continue;
            }
            let Some((part, request)) = recipe.and_then(Request::of_recipe) else { return Err(vec![self.unknown(name)]) };
            let known = issued.iter().position(|(by, asked, _)| *by == authority && *asked == request);
            let index = match known {
                Some(index) => index,
                None => {
                    let pem = self.reveal_with(&authority, access, opened)?;
                    let place = self.dir.join(self.place(&authority).unwrap_or_default());
                    let made = issue(&pem, &request, jiff::Timestamp::now().as_second())
                        .map_err(|reason| vec![VaultError::Content { file: place, reason: format!("secret `{authority}` {reason}") }])?;
                    issued.push((authority, request, made));
                    issued.len() - 1
                }
            };
            let made = &issued[index].2;
            let value = match part {
                Part::Key => made.key.clone(),
                Part::Chain => Zeroizing::new(made.chain.clone()),
                Part::Authority => Zeroizing::new(made.authority.clone()),
            };
            vault.insert(name.clone(), value);
        }
        Ok(())
    }
}

/// The certificate in an authority's secret.
///
/// # Errors
/// What is missing, without any of the text.
pub fn authority_certificate(pem: &str) -> Result<String, String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let missing = || "holds no certificate of an authority; make one with `soc-provision secrets ca`".to_owned();
    let from = pem.find(BEGIN).ok_or_else(missing)?;
    let length = pem[from..].find(END).ok_or_else(missing)?;
    let text = format!("{}\n", &pem[from..from + length + END.len()]);
    if certificate::read(&text).is_ok_and(|read| read.is_authority) { Ok(text) } else { Err(missing()) }
}

fn issue(pem: &str, request: &Request, now: i64) -> Result<Issued, String> {
    let authority = authority_certificate(pem)?;
    let ends = certificate::read(&authority)?.not_after;
    if ends < now + i64::from(request.days) * DAY {
        return Err(format!(
            "is an authority that ends on {}, before a certificate of {} days would: ask for fewer `days`, or make a new one with `soc-provision secrets ca --replace`",
            date_of(ends),
            request.days
        ));
    }
    let signer = KeyPair::from_pem(pem).map_err(|_| "holds no private key that can be used (PKCS#8 in PEM)".to_owned())?;
    let cannot = |error: rcgen::Error| format!("cannot sign: {error}");
    let issuer = Issuer::from_ca_cert_pem(&authority, signer).map_err(cannot)?;
    let mut params = CertificateParams::new(request.names.clone()).map_err(cannot)?;
    params.distinguished_name = subject(request.names.first().map_or("", String::as_str));
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    set_validity(&mut params, now, request.days);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(cannot)?;
    let certificate = params.signed_by(&key, &issuer).map_err(cannot)?;
    Ok(Issued { key: Zeroizing::new(key.serialize_pem()), chain: format!("{}{authority}", certificate.pem()), authority })
}

/// A new authority: its key and its certificate, in PEM, as they are stored.
///
/// # Errors
/// If there is no randomness, or the name is unfit.
pub fn new_authority(name: &str, days: u32) -> Result<Zeroizing<String>, String> {
    let cannot = |error: rcgen::Error| format!("cannot make a certificate authority: {error}");
    let now = jiff::Timestamp::now().as_second();
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, now, days);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(cannot)?;
    let certificate = params.self_signed(&key).map_err(cannot)?;
    let text = Zeroizing::new(key.serialize_pem());
    Ok(Zeroizing::new(format!("{}{}", &**text, certificate.pem())))
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if name.len() <= COMMON_NAME {
        subject.push(DnType::CommonName, name);
    } else {
        subject.push(DnType::OrganizationName, "soc-provision");
    }
    subject
}

fn date_of(seconds: i64) -> Date {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// From a day back, for hosts whose clock is behind.
fn set_validity(params: &mut CertificateParams, now: i64, days: u32) {
    let day = |seconds| {
        let date = date_of(seconds);
        date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(now - DAY), day(now + i64::from(days) * DAY));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_fits_together_and_ends_before_its_authority() {
        let authority = new_authority("SOC of a test", 400).unwrap();
        let request = Request { names: vec!["a.example".into(), "10.0.0.5".into(), "fd00::1".into()], days: 90 };
        let now = jiff::Timestamp::now().as_second();
        let (one, two) = (issue(&authority, &request, now).unwrap(), issue(&authority, &request, now).unwrap());
        assert_ne!(*one.key, *two.key);
        let read = certificate::read(&one.chain).unwrap();
        assert_eq!(read.names, request.names);
        assert!((read.not_after - now - 90 * DAY).abs() <= DAY, "{read:?}");
        assert_eq!(one.chain.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!one.chain.contains("PRIVATE") && !one.authority.contains("PRIVATE"));
        let late = issue(&authority, &Request { days: 500, ..request.clone() }, now).err().unwrap();
        assert!(late.contains("before a certificate of 500 days"), "{late}");
        let leaf = issue(&one.chain, &request, now).err().unwrap();
        assert!(leaf.contains("secrets ca"), "{leaf}");
        let other = issue("gibberish", &request, now).err().unwrap();
        assert!(other.contains("secrets ca") && !other.contains("gibberish"), "{other}");
    }
}
